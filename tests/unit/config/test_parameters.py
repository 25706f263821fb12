"""The table of parameters."""

import pytest

from storage_cleanup.config.parameters import DEFAULTS, PARAMETERS, SECRETS, read_one
from storage_cleanup.errors import ConfigurationError


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_meaning_is_a_sentence_that_parameter_store_takes(name: str) -> None:
    meaning = PARAMETERS[name].meaning
    assert meaning.endswith(".")
    assert len(meaning) <= 1024


def test_a_secret_has_no_default() -> None:
    assert SECRETS.isdisjoint(DEFAULTS)


def test_one_parameter_is_read_whatever_is_wrong_with_the_others() -> None:
    assert read_one("production/interval-minutes", {"production/interval-minutes": "60", "profile": "?"}) == 60


@pytest.mark.parametrize(
    ("name", "tree", "fault"),
    [
        ("supabase/url", {}, f"supabase/url is missing; it accepts {PARAMETERS['supabase/url'].accepts}"),
        ("enabled", {"enabled": "on"}, "enabled is 'on': neither true nor false; it accepts true or false"),
    ],
)
def test_one_parameter_is_refused_as_among_all(name: str, tree: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_one(name, tree)
    assert refusal.value.faults == (fault,)


def test_a_secret_is_not_shown_when_it_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_one("database/url", {"database/url": "mysql://me:hushhush@db/x"})
    assert "hushhush" not in str(refusal.value)
