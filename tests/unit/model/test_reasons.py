"""What the database says about jobs and claims is known here, with a meaning; so is every word of an account."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage_cleanup.model.reasons import Reason, meaning
from storage_cleanup.model.vocabulary import ClaimState, Outcome, Status

SQL = (Path(__file__).resolve().parents[3] / "database/install.sql").read_text()


def words_in_sql() -> Iterator[str]:
    """Yield what the functions that decide about jobs put into a column outcome or reason."""
    for name in ("claim", "adopt", "delete_rows", "claim_fileless", "left_alone"):
        body = SQL.partition(f"function storage_cleanup.{name}(")[2].partition("$$;")[0]
        yield from re.findall(r"(?:then|else) '(\w+)'", body)
        yield from re.findall(r"select (?:job|asked|one|job_id)(?:\.\w+)?, '(\w+)'", body)
    yield from re.findall(r"case release\.reason when '(\w+)'", SQL)


def accepted_by(column: str) -> set[str]:
    """Return what a column of the ledger may hold."""
    listed = re.search(rf"check \({column} in \((.*?)\)\)", SQL, re.DOTALL)
    assert listed
    return set(re.findall(r"'(\w+)'", listed[1]))


def test_the_databases_words_are_found() -> None:
    assert set(words_in_sql()) >= {"saved", "shared_with_kept_job", "job_changed", "foreign_key", "job_gone"}


@pytest.mark.parametrize("word", sorted(set(words_in_sql()) - {*Outcome, *ClaimState}))
def test_every_word_that_the_database_answers_with_is_a_reason(word: str) -> None:
    assert Reason[word.upper()].meaning


def test_the_ledger_has_the_states_that_are_known_here() -> None:
    assert accepted_by("state") == set(ClaimState)


def test_a_run_ends_in_a_status_that_is_known_here() -> None:
    assert accepted_by("status") == {*Status, "running"}


def test_a_storage_error_keeps_the_name_that_storage_gave_it() -> None:
    assert meaning("storage_SlowDown") == "Storage refused to remove it: SlowDown"


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    assert meaning("brand_new") == "brand_new"
