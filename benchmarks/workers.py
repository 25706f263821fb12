"""Several processes on one backlog."""

from collections.abc import Iterator
from functools import partial

from benchmarks.cycles import run_together
from benchmarks.figures import Figure, in_turn, rates, ratios
from benchmarks.project import EmbeddedProject, Ground

_IN_FLIGHT = 4
_SLOWED_MS = 1000


def workers(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Four workers over one: where the waiting is the limit, and where the server is."""
    count, pairs = (2000, 1) if quick else (48_000, 3)
    yield _compare(ground, "workers_4_vs_1", count, pairs, slowed_ms=_SLOWED_MS)
    yield _compare(ground, "workers_4_contention", count, pairs, slowed_ms=0)


def _compare(ground: Ground, key: str, count: int, pairs: int, *, slowed_ms: int) -> Figure:
    one, four = in_turn(pairs, *(partial(_drain, ground, count, number, slowed_ms) for number in (1, 4)))
    note = f"{rates('four', four)}, {rates('one', one)}; {_IN_FLIGHT} in flight each; each object removed exactly once"
    return Figure(key, ratios(four, one), note)


def _drain(ground: Ground, count: int, number: int, slowed_ms: int) -> float:
    """Drain a backlog with so many workers; return how many objects a second went."""
    with ground.project() as project:
        project.seed(count, stored=False)
        if slowed_ms:
            project.slow_down(slowed_ms)
        project.storage.reset_stats()
        runs = run_together(project, number, in_flight=_IN_FLIGHT)
        _assert_once(project, count, sum(run.files for run in runs))
        return count / (max(run.finished for run in runs) - min(run.started for run in runs))


def _assert_once(project: EmbeddedProject, count: int, credited: int) -> None:
    """Make sure that every object was removed exactly once, and that every row has gone but the one that is saved."""
    removals, left = project.storage.stats()["removals"], project.count("render_jobs") - 1
    removals = {name: times for name, times in removals.items() if name.startswith(f"{project.bucket}/")}
    times = set(removals.values())
    if (len(removals), times, credited, left) != (count, {1}, count, 0):
        raise RuntimeError(
            f"{len(removals)} of {count} were removed, {times} times; {credited} credited; rows left: {left}"
        )
