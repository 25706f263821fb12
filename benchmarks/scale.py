"""What grows with the backlog, and what with the history: memory, an idle cycle, the slowest statement."""

import time
from collections.abc import Iterator

from benchmarks import cycles
from benchmarks.cycles import WorkerRun, run_together
from benchmarks.figures import Figure, ratios
from benchmarks.plot import draw
from benchmarks.project import EmbeddedProject, Ground
from local.postgres import ROOT

PLOT = ROOT / "docs" / "backlog.svg"


def memory(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Drain backlogs that grow by ten, and compare the peaks; draws the plot, unless quick."""
    small, middle, large = (1000, 3000, 10_000) if quick else (10_000, 100_000, 1_000_000)
    drains = [_drain(ground, size) for size in (small, small, small, middle, large)]
    peaks = [drain.peak_mb for drain in drains if drain.files == small]
    last = drains[-1]
    note = "; ".join(
        f"{drain.files:,}: {drain.peak_mb:.0f} MB, {drain.seconds:.1f} s ({drain.files / drain.seconds:,.0f}/s)"
        for drain in drains[2:]
    )
    yield Figure("memory_growth", tuple(last.peak_mb / peak for peak in peaks), note)
    yield Figure("peak_rss_mb", (last.peak_mb,), f"at {last.files:,}, with all that the function imports")
    if not quick:
        draw(PLOT, drains[2:])


def _drain(ground: Ground, backlog: int) -> WorkerRun:
    with ground.project() as project:
        project.seed(backlog, stored=False)
        (run,) = run_together(project, 1)
    if (run.files, run.rows) != (backlog, backlog):
        raise RuntimeError(f"Of {backlog} files {run.files} were removed, and {run.rows} rows")
    return run


def history(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """A long history: statements of a cycle with much to do, and then cycles that find nothing."""
    small, large = (1000, 20_000) if quick else (10_000, 1_000_000)
    with ground.project() as few:
        few.seed(0, saved=small)
        idle_at_few = _idle(few)
    with ground.project() as many:
        many.seed(large // 10, saved=large * 9 // 10, stored=False)
        yield _slowest_statement(many, large)
        many.seed(0, saved=large // 10)
        idle_at_many = _idle(many)
    note = f"{min(idle_at_many) * 1000:.0f} ms at {large:,}, {min(idle_at_few) * 1000:.0f} ms at {small:,}"
    yield Figure("idle_growth", ratios(idle_at_many, idle_at_few), note)


def _slowest_statement(project: EmbeddedProject, jobs: int) -> Figure:
    """Run a whole cycle among many jobs and assets, and hold its slowest statement against a plain count."""
    slowest, counts, names = [], [], []
    for _ in range(3):
        counts.append(_count_seconds(project))
        run = cycles.run(project, most=jobs // 100)
        slowest.append(run.slowest_seconds)
        names.append(f"{run.slowest_query} {run.slowest_seconds * 1000:.0f} ms")
    note = f"{', '.join(names)}; count(*) {min(counts) * 1000:.0f} ms at {jobs:,} jobs and {jobs * 9 // 10:,} assets"
    return Figure("queries_slowest_ms_ratio", ratios(slowest, counts), note)


def _count_seconds(project: EmbeddedProject) -> float:
    with project.connect("postgres") as connection:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            connection.execute("select count(*) from render_jobs").fetchone()
            times.append(time.perf_counter() - started)
        return sorted(times)[1]


def _idle(project: EmbeddedProject) -> list[float]:
    """Return the times of some cycles that find nothing."""
    cycles.run(project)  # what was left, and caches
    return [cycles.run(project, expected=0).seconds for _ in range(9)]
