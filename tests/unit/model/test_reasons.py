"""Every reason that a run can answer with has a sentence."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage_cleanup.model.reasons import MEANINGS, meaning

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "layers/storage_cleanup/storage_cleanup"
NO_REASONS = {"claimed", "already_missing", "deleted", "file_deleted", "done", "unasked"}


def reasons_in_sql() -> Iterator[str]:
    """Yield what the functions that decide about jobs put into a column outcome or reason."""
    text = (ROOT / "database/install.sql").read_text()
    for name in ("claim", "adopt", "delete_rows", "claim_fileless", "left_alone"):
        body = text.partition(f"function storage_cleanup.{name}(")[2].partition("$$;")[0]
        yield from re.findall(r"(?:then|else) '(\w+)'", body)
        yield from re.findall(r"select (?:job|asked|one|job_id)(?:\.\w+)?, '(\w+)'", body)
    yield from re.findall(r"case release\.reason when '(\w+)'", text)


def reasons_in_python() -> Iterator[str]:
    for module in PACKAGE.glob("cleanup/**/*.py"):
        text = module.read_text()
        yield from re.findall(r'(?:skipped|failed)\["(\w+)"\]', text)
        yield from re.findall(r'_(?:Kept|Failed|Stopped)Error\("(\w+)"\)', text)
        yield from re.findall(r'kept\[[\w.]+\] = "(\w+)"', text)
        yield from re.findall(r'(?:stopped = |else |return |return None if .* else )"([a-z]+_\w+|disabled)"', text)


def test_reasons_are_found_where_they_are_given() -> None:
    found = {*reasons_in_sql(), *reasons_in_python()}
    expected = {"saved", "shared_with_kept_job", "job_changed", "foreign_key", "too_young", "time_is_short", "job_gone"}
    assert found >= expected


@pytest.mark.parametrize("reason", sorted({*reasons_in_sql(), *reasons_in_python()} - NO_REASONS))
def test_every_reason_has_a_sentence(reason: str) -> None:
    assert reason in MEANINGS


def test_a_storage_error_keeps_the_name_that_storage_gave_it() -> None:
    assert meaning("storage_SlowDown") == "Storage refused to remove it: SlowDown"


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    assert meaning("brand_new") == "brand_new"
