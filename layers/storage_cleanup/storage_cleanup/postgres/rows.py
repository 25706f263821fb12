"""Rows that more than one adapter reads."""

from dataclasses import dataclass
from typing import Generic, TypeVar

_Column = TypeVar("_Column")


@dataclass(frozen=True)
class Value(Generic[_Column]):
    """A row of one column, which the statement names ``value``."""

    value: _Column
