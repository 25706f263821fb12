"""Several processes on one backlog."""

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.cycles import Worker
from benchmarks.figures import Figure, at_least, rates
from benchmarks.project import EmbeddedProject, Ground

_IN_FLIGHT = 4
_SLOWED_MS = 1000


def workers(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Four workers over one: where the waiting is the limit, and where the server is."""
    count, pairs = (2000, 1) if quick else (48_000, 3)
    yield _compare(ground, "workers_4_vs_1", count, pairs, slowed_ms=_SLOWED_MS, goal=3.2)
    count, pairs = (2000, 1) if quick else (48_000, 3)
    yield _compare(ground, "workers_4_contention", count, pairs, slowed_ms=0, goal=0.9)


def _compare(ground: Ground, key: str, count: int, pairs: int, *, slowed_ms: int, goal: float) -> Figure:
    one, four = [], []
    for _ in range(pairs):
        one.append(_drain(ground, count, 1, slowed_ms))
        four.append(_drain(ground, count, 4, slowed_ms))
    ratios = tuple(many / single for many, single in zip(four, one, strict=True))
    note = f"{rates('four', four)}, {rates('one', one)}; {_IN_FLIGHT} in flight each; each object removed exactly once"
    return Figure(key, ratios, at_least(goal), note)


def _drain(ground: Ground, count: int, number: int, slowed_ms: int) -> float:
    """Drain a backlog with so many workers; return how many objects a second went."""
    with ground.project() as project, ExitStack() as stack:
        project.seed(count, stored=False)
        if slowed_ms:
            project.slow_down(slowed_ms)
        project.storage.reset_stats()
        started = [stack.enter_context(Worker(project, in_flight=_IN_FLIGHT)) for _ in range(number)]
        for worker in started:
            worker.start()
        runs = [worker.result() for worker in started]
        _assert_once(project, count, sum(run.files for run in runs))
        return count / (max(run.finished for run in runs) - min(run.started for run in runs))


def _assert_once(project: EmbeddedProject, count: int, credited: int) -> None:
    """Make sure that every object was removed exactly once, and that every row has gone."""
    removals = project.storage.stats()["removals"]
    with project.connect() as superuser:
        row = superuser.execute("select count(*) from render_jobs").fetchone()
    removals = {name: times for name, times in removals.items() if name.startswith(f"{project.bucket}/")}
    times = set(removals.values())
    if (len(removals), times, credited, row) != (count, {1}, count, (0,)):
        raise RuntimeError(
            f"{len(removals)} of {count} were removed, {times} times; {credited} credited; rows left: {row}"
        )
