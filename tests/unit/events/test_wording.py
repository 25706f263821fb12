"""How refusals show values and guess names."""

import pytest

from storage_cleanup.events.wording import misspelt, shown, unknown_names


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


def test_text_of_more_than_80_characters_is_cut() -> None:
    assert shown("x" * 80) == f"'{'x' * 80}'"
    assert shown("x" * 81) == f"'{'x' * 80}'… (81 characters)"


@pytest.mark.parametrize("secret", ["sb_secret_x", "eyJhbGciOi", "postgresql://me:pw@host/db", " eyJhbGciOi"])
def test_what_looks_like_a_secret_is_withheld(secret: str) -> None:
    assert shown(secret) == "a text that may hold a secret"


def test_a_name_that_is_near_is_guessed() -> None:
    assert unknown_names(["dryrun"], ["dry_run", "phases"], "field") == ["'dryrun' is no field; did you mean dry_run?"]


def test_where_nothing_is_near_all_names_are_given() -> None:
    assert unknown_names(["zzz"], ["dry_run", "phases"], "field") == ["'zzz' is no field; there are dry_run, phases"]


@pytest.mark.parametrize("name", [1, "p" * 101])
def test_what_is_no_text_or_longer_than_100_characters_is_not_compared(name: object) -> None:
    known = ["p" * 100, "dry_run"]
    assert unknown_names([name], known, "field") == [f"{shown(name)} is no field; there are {', '.join(known)}"]
    assert unknown_names(["p" * 99 + "q"], known, "field")[0].endswith(f"did you mean {known[0]}?")


def test_many_unknown_names_are_counted() -> None:
    assert unknown_names(map(str, range(100_000)), ["x"], "field")[-1] == "and 99990 more that are no field"


@pytest.mark.parametrize(
    ("name", "is_misspelt"),
    [("enabld", True), ("enable", True), ("xyenabled", True), ("xyenablex", False), ("enbled", True), ("able", False)],
)
def test_a_name_within_two_edits_of_one_that_is_not_set_is_misspelt(name: str, is_misspelt: bool) -> None:
    assert misspelt([name], {"enabled"}) == ([name] if is_misspelt else [])
