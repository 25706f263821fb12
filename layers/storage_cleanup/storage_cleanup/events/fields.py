"""How the fields of an event are read, and how an event is refused: the same for every function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from storage_cleanup.errors import RequestError
from storage_cleanup.events.wording import shown, unknown_names


@dataclass(frozen=True)
class Field:
    """A field beside the action.

    Attributes
    ----------
    accepts
        What is right, to end a fault with: "it accepts …".
    read
        Returns the value; raises ValueError with what is wrong, as it follows the field's name.
    """

    accepts: str
    read: Callable[[object], Any]
    required: bool = False


def read_fields(event: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the values of the fields that an event has.

    Raises
    ------
    RequestError
        With every fault: a field that is missing, unknown or unreadable.
    """
    faults = unknown_names(event, ("action", *fields), "field")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in event:
            if field.required:
                faults.append(f"{name} is missing; it accepts {field.accepts}")
            continue
        try:
            values[name] = field.read(event[name])
        except ValueError as problem:
            faults.append(f"{name} {problem}; it accepts {field.accepts}")
    if faults:
        raise RequestError(faults)
    return values


def not_for_this_function(event: object, accepted: str) -> RequestError:
    """Return the refusal of an event of another kind, with what is accepted."""
    return RequestError([f"{kind(event)} isn't for this function; accepted {accepted}"])


def kind(event: object) -> str:
    """Return in words what kind of event it is."""
    if not isinstance(event, Mapping):
        return f"an event that is {shown(event)}"
    for name in ("action", "detail-type"):
        if name in event:
            return f"an event whose {name} is {shown(event[name])}"
    return "an event without an action"


def boolean() -> Field:
    """Return a field of true or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise _unfit(value)
        return value

    return Field("true or false", read)


def whole_number(high: int, *, required: bool = False) -> Field:
    """Return a field of a number from 1 to ``high``."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise _unfit(value)
        return value

    return Field(f"a whole number from 1 to {high}", read, required)


def one_of(words: type[StrEnum]) -> Field:
    """Return a field of one word, which the event must have."""

    def read(value: object) -> StrEnum:
        if not isinstance(value, str) or value not in set(words):
            raise _unfit(value)
        return words(value)

    return Field(", ".join(words), read, required=True)


def some_of(words: type[StrEnum], noun: str) -> Field:
    """Return a field of a list of words, at least one and none twice."""

    def read(value: object) -> frozenset[StrEnum]:
        if not isinstance(value, list):
            raise _unfit(value)
        if not value:
            raise ValueError("is empty")
        if strange := [name for name in value if not isinstance(name, str) or name not in set(words)]:
            raise ValueError("has a fault: " + "; ".join(unknown_names(strange, [each.value for each in words], noun)))
        if len(set(value)) < len(value):
            raise ValueError(f"names a {noun} twice")
        return frozenset(map(words, value))

    return Field(f"a list of {', '.join(words)}, each at most once", read)


def plan_id() -> Field:
    """Return a field of the id of a dry run, read in lower case."""

    def read(value: object) -> str:
        try:
            plan = str(UUID(value)) if isinstance(value, str) else None
        except ValueError:
            plan = None
        if plan is None or not isinstance(value, str) or plan != value.lower():
            raise _unfit(value)
        return plan

    return Field("the plan_id of a dry run, a UUID", read)


def _unfit(value: object) -> ValueError:
    return ValueError(f"is {shown(value)}")
