"""How fast: a whole real cycle over what people do today, and over what the server could do at most."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from benchmarks import ceiling, cycles, original
from benchmarks.figures import Figure, in_turn, rates, ratios
from benchmarks.project import REAL_PACE_MS, EmbeddedProject, Ground, Project, Source

_PUSHED_BACK = 0.2


def vs_original_local(source: Source, *, quick: bool) -> Iterator[Figure]:
    """The original's algorithm on the same data and server."""
    count, pairs = (500, 1) if quick else (3000, 3) if source.is_embedded else (2000, 3)
    slow, fast = _against_original(source, count, pairs)
    yield Figure("vs_original_local", ratios(fast, slow), _note(fast, "original", slow))


def vs_original_50ms(source: Source, *, quick: bool) -> Iterator[Figure]:
    """The same with a server that takes 50 ms longer for each request."""
    count, pairs, sample = (2000, 1, 20) if quick else (20_000 if source.is_embedded else 5000, 3, 100)
    slow, fast = _against_original(source, count, pairs, sample=sample, slow_ms=50)
    note = f"{_note(fast, 'original', slow)}; the original removed {sample} files, its requests are extrapolated"
    yield Figure("vs_original_50ms", ratios(fast, slow), note)


def vs_ceiling(source: Source, *, quick: bool) -> Iterator[Figure]:
    """The bare server at its best: the same names, and no bookkeeping."""
    count, pairs = (2000, 1) if quick else (20_000, 3) if source.is_embedded else (6000, 3)
    best = _best_setting(source, count // 2)
    bare, ours = _against_ceiling(source, best, count, pairs)
    note = f"{_note(ours, 'bare server', bare)}; its best: {best[0]} names, {best[1]} in flight"
    yield Figure("vs_ceiling", ratios(ours, bare), note)
    if source.is_embedded:
        bare, ours = _against_ceiling(source, (500, 8), count, max(1, pairs - 1), slow_ms=REAL_PACE_MS)
        note = f"{_note(ours, 'bare server', bare)}; answers slowed by {REAL_PACE_MS} ms, as a real server's"
        yield Figure("vs_ceiling_at_real_pace", ratios(ours, bare), note)


def throttled(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """A server that refuses a fifth of the requests."""
    count, pairs = (4000, 1) if quick else (20_000, 3)

    def drain(project: EmbeddedProject, pushed_back: float) -> float:
        project.seed(count, stored=False)
        if pushed_back:
            project.push_back(pushed_back)
        return cycles.run(project, expected=count).rate

    calm, disturbed = _in_turn(ground, pairs, partial(drain, pushed_back=0.0), partial(drain, pushed_back=_PUSHED_BACK))
    note = f"{rates('disturbed', disturbed)}, {rates('undisturbed', calm)}; half SlowDown, half 429"
    yield Figure("throttled", ratios(disturbed, calm), note)


def _in_turn(
    source: Source, pairs: int, one: Callable[..., float], other: Callable[..., float]
) -> tuple[list[float], list[float]]:
    """Measure both in turn, each time on a project of its own."""

    def on_project(measure: Callable[..., float]) -> float:
        with source.project() as project:
            return measure(project)

    first, second = in_turn(pairs, partial(on_project, one), partial(on_project, other))
    return first, second


def _against_original(
    source: Source, count: int, pairs: int, *, sample: int | None = None, slow_ms: int = 0
) -> tuple[list[float], list[float]]:
    # Where each file has to be uploaded first, no more than the original will remove.
    most = None if source.is_embedded else sample

    def theirs(project: Project) -> float:
        project.seed(most or count, saved=0 if most else count // 4)
        return original.run(project, sample=sample, delay=_slowed(project, slow_ms))

    def ours(project: Project) -> float:
        project.seed(count, saved=count // 4)
        return cycles.run(project, delay=_slowed(project, slow_ms), expected=count).rate

    return _in_turn(source, pairs, theirs, ours)


def _against_ceiling(
    source: Source, setting: tuple[int, int], count: int, pairs: int, *, slow_ms: int = 0
) -> tuple[list[float], list[float]]:
    def bare(project: Project) -> float:
        names = project.seed(count)
        _slowed(project, slow_ms)
        return ceiling.run(project, names, setting)

    def ours(project: Project) -> float:
        project.seed(count)
        _slowed(project, slow_ms)
        return cycles.run(project, expected=count).rate

    return _in_turn(source, pairs, bare, ours)


def _best_setting(source: Source, count: int) -> tuple[int, int]:
    """Try out which batch and concurrency suit the bare server best."""
    rates_by_setting = {}
    # Where each file has to be uploaded first, only what was best on a real server.
    for setting in ceiling.SETTINGS if source.is_embedded else ((500, 8), (1000, 8)):
        with source.project() as project:
            rates_by_setting[setting] = ceiling.run(project, project.seed(count), setting)
    return max(rates_by_setting, key=lambda setting: rates_by_setting[setting])


def _slowed(project: Project, milliseconds: int) -> float:
    """Add that to every removal, at the server where it can be told to; return the seconds to be added here."""
    if not isinstance(project, EmbeddedProject):
        return milliseconds / 1000
    if milliseconds:
        project.slow_down(milliseconds)
    return 0.0


def _note(ours: list[float], other: str, theirs: list[float]) -> str:
    digits = 0 if median(theirs) >= 100 else 1
    return f"cycle {median(ours):,.0f}/s, {other} {median(theirs):,.{digits}f}/s"
