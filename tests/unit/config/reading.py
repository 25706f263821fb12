"""Reading trees of parameters in tests, at a time of their own."""

from datetime import UTC, datetime

import pytest

from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ConfigurationError
from tests.unit.examples import PARAMETERS

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def read(**changes: str) -> Settings:
    return read_tree({**PARAMETERS, **changes})


def read_tree(parameters: dict[str, str]) -> Settings:
    return Settings.from_parameters(parameters, now=NOW)


def faults(changes: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refusal:
        read_tree({**PARAMETERS, **changes})
    return refusal.value.faults


def only_fault(name: str, value: str) -> str:
    found = faults({name: value})
    assert len(found) == 1
    assert found[0].startswith(name)
    assert "it accepts" in found[0]
    return found[0]
