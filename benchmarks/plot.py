"""The plot of time and memory against the backlog: SVG, written by hand, because two curves need no library."""

from collections.abc import Sequence
from math import log10
from pathlib import Path

from benchmarks.cycles import WorkerRun

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 400, 70, 70, 50, 60
_TIME, _MEMORY, _INK = "#1a6fb0", "#c2562b", "#444444"


def draw(path: Path, drains: Sequence[WorkerRun]) -> None:
    """Write the plot: backlog and seconds on logarithmic scales, megabytes from zero."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_svg(drains))


def _svg(drains: Sequence[WorkerRun]) -> str:
    first, last = drains[0].files, drains[-1].files
    slow, quick = max(drain.seconds for drain in drains), min(drain.seconds for drain in drains)
    decades = range(int(log10(quick)) - (quick < 1), int(log10(slow)) + 2)
    most_mb = max(200.0, *(drain.peak_mb * 1.2 for drain in drains))

    def x(backlog: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * log10(backlog / first) / log10(last / first)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    def y_time(seconds: float) -> float:
        return y((log10(seconds) - decades[0]) / (decades[-1] - decades[0]))

    def y_memory(megabytes: float) -> float:
        return y(megabytes / most_mb)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_WIDTH / 2, 24, "A whole cycle against its backlog", "middle", size=16),
        _text(_WIDTH / 2, _HEIGHT - 14, "orphans to remove", "middle"),
        _text(_LEFT, 44, "seconds", "middle", _TIME),
        _text(_WIDTH - _RIGHT, 44, "peak MB", "middle", _MEMORY),
        f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}V{_TOP}" fill="none" stroke="{_INK}"/>',
    ]
    for decade in decades:
        height = y_time(10.0**decade)
        parts.append(f'<path d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 8, height + 4, f"{10.0**decade:g}", "end", _TIME))
    parts += [
        _text(_WIDTH - _RIGHT + 8, y_memory(megabytes) + 4, str(megabytes), "start", _MEMORY)
        for megabytes in range(0, int(most_mb) + 1, 50)
    ]
    parts += [_text(x(drain.files), _HEIGHT - _BOTTOM + 18, f"{drain.files:,}", "middle") for drain in drains]
    parts += _curve([(x(d.files), y_time(d.seconds), f"{d.seconds:.1f} s") for d in drains], _TIME)
    parts += _curve([(x(d.files), y_memory(d.peak_mb), f"{d.peak_mb:.0f} MB") for d in drains], _MEMORY)
    return "\n".join([*parts, "</svg>", ""])


def _curve(points: Sequence[tuple[float, float, str]], colour: str) -> list[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, y, label in points:
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        side, shift = ("start", 8) if x < _WIDTH / 2 else ("end", -8)
        parts.append(_text(x + shift, y - 8, label, side, colour))
    return parts


def _text(x: float, y: float, text: str, anchor: str, colour: str = _INK, *, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{text}</text>'
