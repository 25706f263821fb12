"""The circuit breaker: when a run may no longer be trusted to delete."""

import pytest

from storage_cleanup.cleanup.circuit_breaker import FailureBreaker, judge_first_run, judge_reference_set

# -- The set of saved assets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now"),
    [(None, 0), (None, 7), (0, 0), (0, 7), (1, 1), (100, 100), (100, 101), (100, 80), (1000, 801)],
    ids=str,
)
def test_a_set_that_grew_or_shrank_by_no_more_than_allowed_is_trusted(before: int | None, now: int) -> None:
    assert judge_reference_set(now, before, 20) is None


def test_a_set_that_shrank_by_more_than_allowed_is_refused_with_the_figures_and_the_parameter() -> None:
    assert judge_reference_set(799, 1000, 20) == (
        "saved assets fell from 1000 to 799 (20.1 %), measured by the most of 7 days; "
        "limits/max-saved-drop-percent allows 20 %"
    )


@pytest.mark.parametrize("allowed", [0, 20, 99, 100])
@pytest.mark.parametrize("before", [1, 1000])
def test_an_empty_set_is_refused_where_it_was_not_empty_whatever_is_allowed(before: int, allowed: int) -> None:
    assert f"fell from {before} to 0 (100.0 %)" in str(judge_reference_set(0, before, allowed))


def test_without_any_allowance_one_lost_asset_is_too_many() -> None:
    assert judge_reference_set(999, 1000, 0)
    assert judge_reference_set(1000, 1000, 0) is None


def test_with_the_whole_set_allowed_all_but_the_last_asset_may_go() -> None:
    assert judge_reference_set(1, 1000, 100) is None


# -- The first run ----------------------------------------------------------------------------------------------------


def test_a_first_run_in_a_project_that_is_only_tried_out_is_trusted() -> None:
    assert judge_first_run(has_assets=False, has_jobs=False, keys=[]) is None


@pytest.mark.parametrize(
    ("has_assets", "has_jobs", "keys", "facts"),
    [
        (True, False, ["renderJobId", "size"], "user_assets has rows (keys of metadata: 'renderJobId', 'size')"),
        (True, False, [], "user_assets has rows (keys of metadata: none)"),
        (False, True, [], "more than 20 jobs are completed"),
        (
            True,
            True,
            ["id"],
            "user_assets has rows (keys of metadata: 'id') and more than 20 jobs are completed",
        ),
    ],
)
def test_a_first_run_that_may_be_blind_to_the_saves_is_refused_with_what_speaks_for_it_and_the_way_out(
    has_assets: bool, has_jobs: bool, keys: list[str], facts: str
) -> None:
    assert judge_first_run(has_assets=has_assets, has_jobs=has_jobs, keys=keys) == (
        "nothing was ever deleted here, and no asset names a render job by metadata->>'render_job_id', although "
        f"{facts}: if renders are saved under another key, all of them would be lost. "
        "If nobody has saved any, settle it for good: "
        'send {"action": "cleanup", "dry_run": true}, read what it would delete, and send {"action": "cleanup", '
        '"override": "…"} with the plan_id of its answer'
    )


# -- Failures within a run ---------------------------------------------------------------------------------------------


def test_a_breaker_is_closed_before_anything_was_tried() -> None:
    assert FailureBreaker(0).reason is None


@pytest.mark.parametrize("max_percent", [0, 10])
def test_few_attempts_are_never_judged(max_percent: int) -> None:
    breaker = FailureBreaker(max_percent)
    breaker.record(attempted=19, failed=19)
    assert breaker.reason is None
    breaker.record(attempted=1, failed=0)
    assert breaker.reason


def test_as_many_failures_as_allowed_keep_it_closed_and_one_more_opens_it() -> None:
    breaker = FailureBreaker(10)
    breaker.record(attempted=100, failed=10)
    assert breaker.reason is None
    breaker.record(attempted=1, failed=1)
    assert breaker.reason == "11 of 101 deletions failed (11 %); limits/max-failure-percent allows 10 %"


def test_without_any_allowance_the_first_failure_opens_it() -> None:
    breaker = FailureBreaker(0)
    breaker.record(attempted=1000, failed=0)
    assert breaker.reason is None
    breaker.record(attempted=1, failed=1)
    assert breaker.reason


def test_with_all_failures_allowed_it_never_opens() -> None:
    breaker = FailureBreaker(100)
    breaker.record(attempted=1000, failed=1000)
    assert breaker.reason is None


def test_batches_are_judged_together() -> None:
    breaker = FailureBreaker(10, minimum=3)
    for failed in (1, 0, 0, 0, 0, 0, 0, 0, 0, 0):
        breaker.record(attempted=1, failed=failed)
    assert breaker.reason is None
    assert (breaker.attempted, breaker.failed) == (10, 1)
