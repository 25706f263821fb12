"""How fast: a whole real cycle over what people do today, and over what the server could do at most."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from statistics import median

from benchmarks import ceiling, cycles, original
from benchmarks.figures import Figure, at_least, rates
from benchmarks.project import EmbeddedProject, Ground, Project

Projects = Callable[[], AbstractContextManager[Project]]

_PUSHED_BACK = 0.2
#: What makes the emulator as fast as the real server was (6,027 names/s with 500 names and 8 in flight).
_AS_SLOW_AS_MEASURED_MS = 600


def vs_original_local(projects: Projects, *, quick: bool) -> Iterator[Figure]:
    """The original's algorithm on the same data and server."""
    count, pairs = (500, 1) if quick else (3000, 3) if _embedded(projects) else (2000, 3)
    ours, theirs = [], []
    for _ in range(pairs):
        with projects() as project:
            project.seed(count, saved=count // 4)
            theirs.append(original.run(project).rate)
        with projects() as project:
            project.seed(count, saved=count // 4)
            ours.append(cycles.run(project, expected=count).rate)
    is_embedded = project.is_embedded
    yield Figure(
        "vs_original_local", _ratios(ours, theirs), at_least(6 if is_embedded else 14), _note(ours, "original", theirs)
    )


def vs_original_50ms(projects: Projects, *, quick: bool) -> Iterator[Figure]:
    """The same with a server that takes 50 ms longer for each request."""
    count, pairs, sample = (2000, 1, 20) if quick else (20_000 if _embedded(projects) else 5000, 3, 100)
    ours, theirs = [], []
    for _ in range(pairs):
        with projects() as project:
            project.seed(count if project.is_embedded else sample, saved=count // 4 if project.is_embedded else 0)
            theirs.append(original.run(project, sample=sample, delay=_slowed(project)).rate)
        with projects() as project:
            project.seed(count, saved=count // 4)
            ours.append(cycles.run(project, delay=_slowed(project), expected=count).rate)
    note = f"{_note(ours, 'original', theirs)}; the original removed {sample} files, its requests are extrapolated"
    yield Figure("vs_original_50ms", _ratios(ours, theirs), at_least(150), note)


def _slowed(project: Project) -> float:
    """Add 50 ms to every removal, at the server where it can be told to; return what is to be added here."""
    if isinstance(project, EmbeddedProject):
        project.slow_down(50)
        return 0.0
    return 0.05


def vs_ceiling(projects: Projects, *, quick: bool) -> Iterator[Figure]:
    """The bare server at its best: the same names, and no bookkeeping."""
    count, pairs = (2000, 1) if quick else (20_000, 3) if _embedded(projects) else (6000, 3)
    best = _best_setting(projects, count // 2)
    ours, theirs = _against_ceiling(projects, best, count, pairs, slow_ms=0)
    note = f"{_note(ours, 'bare server', theirs)}; its best: {best[0]} names, {best[1]} in flight"
    yield Figure("vs_ceiling", _ratios(ours, theirs), at_least(0.6 if _embedded(projects) else 0.85), note)
    if _embedded(projects):
        best = (500, 8)
        ours, theirs = _against_ceiling(projects, best, count, max(1, pairs - 1), slow_ms=_AS_SLOW_AS_MEASURED_MS)
        note = (
            f"{_note(ours, 'bare server', theirs)}; answers slowed by {_AS_SLOW_AS_MEASURED_MS} ms, as a real server's"
        )
        yield Figure("vs_ceiling_at_real_pace", _ratios(ours, theirs), None, note)


def _against_ceiling(
    projects: Projects, best: tuple[int, int], count: int, pairs: int, *, slow_ms: int
) -> tuple[list[float], list[float]]:
    ours, theirs = [], []
    for _ in range(pairs):
        with projects() as project:
            names = project.seed(count)
            if isinstance(project, EmbeddedProject) and slow_ms:
                project.slow_down(slow_ms)
            theirs.append(ceiling.run(project, names, best))
        with projects() as project:
            project.seed(count)
            if isinstance(project, EmbeddedProject) and slow_ms:
                project.slow_down(slow_ms)
            ours.append(cycles.run(project, expected=count).rate)
    return ours, theirs


def _best_setting(projects: Projects, count: int) -> tuple[int, int]:
    """Try out which batch and concurrency suit the bare server best."""
    rates_by_setting = {}
    # Where each file has to be uploaded first, only what was best on a real server.
    for setting in ceiling.SETTINGS if _embedded(projects) else ((500, 8), (1000, 8)):
        with projects() as project:
            rates_by_setting[setting] = ceiling.run(project, project.seed(count), setting)
    return max(rates_by_setting, key=lambda setting: rates_by_setting[setting])


def throttled(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """A server that refuses a fifth of the requests."""
    count, pairs = (4000, 1) if quick else (20_000, 3)
    calm, disturbed = [], []
    for _ in range(pairs):
        with ground.project() as project:
            project.seed(count, stored=False)
            calm.append(cycles.run(project, expected=count).rate)
        with ground.project() as project:
            project.seed(count, stored=False)
            project.push_back(_PUSHED_BACK)
            disturbed.append(cycles.run(project, expected=count).rate)
    note = f"{rates('disturbed', disturbed)}, {rates('undisturbed', calm)}; half SlowDown, half 429"
    yield Figure("throttled", _ratios(disturbed, calm), at_least(0.5), note)


def _embedded(projects: Projects) -> bool:
    return isinstance(getattr(projects, "__self__", None), Ground)


def _ratios(upper: list[float], lower: list[float]) -> tuple[float, ...]:
    return tuple(one / other for one, other in zip(upper, lower, strict=True))


def _note(ours: list[float], other: str, theirs: list[float]) -> str:
    digits = 0 if median(theirs) >= 100 else 1
    return f"cycle {median(ours):,.0f}/s, {other} {median(theirs):,.{digits}f}/s"
