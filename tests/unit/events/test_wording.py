"""How refusals show values and guess names."""

import pytest

from storage_cleanup.events.wording import shown, unknown_names


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("x", "'x'"),
        ("a\nü", "'a\\n\\xfc'"),
        (3, "3"),
        (True, "True"),
        (None, "None"),
        ([1], "a list"),
        ({}, "a dict"),
        (10**18, "a number of 19 or more digits"),
    ],
)
def test_a_value_is_shown_on_one_line(value: object, literal: str) -> None:
    assert shown(value) == literal


def test_long_text_is_cut() -> None:
    assert len(shown("x" * 10**6)) < 120


@pytest.mark.parametrize("secret", ["sb_secret_x", "eyJhbGciOi", "postgresql://me:pw@host/db", " eyJhbGciOi"])
def test_what_looks_like_a_secret_is_withheld(secret: str) -> None:
    assert secret.strip() not in shown(secret)


def test_a_name_that_is_near_is_guessed() -> None:
    assert unknown_names(["dryrun"], ["dry_run", "phases"], "field") == ["'dryrun' is no field; did you mean dry_run?"]


def test_where_nothing_is_near_all_names_are_given() -> None:
    assert unknown_names(["zzz"], ["dry_run", "phases"], "field") == ["'zzz' is no field; there are dry_run, phases"]


def test_many_unknown_names_are_counted() -> None:
    assert unknown_names(map(str, range(100_000)), ["x"], "field")[-1] == "and 99990 more that are no field"
