"""Figures: medians of paired runs, with their spread, held against their goals."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Goal:
    """What a figure should be at least, or at most."""

    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"

    def is_met_by(self, value: float) -> bool:
        """Compare."""
        return value >= self.limit if self.sign == "≥" else value <= self.limit


at_least = partial(Goal, "≥")
at_most = partial(Goal, "≤")


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes
    ----------
    key
        Its name in ``build/bench.json``.
    values
        One value a pair of runs.
    note
        What the ratio is made of, in absolute figures of this machine.
    goal
        None for what is only told.
    """

    key: str
    values: tuple[float, ...]
    note: str = ""
    goal: Goal | None = None

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest."""
        return min(self.values), max(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None else self.goal.is_met_by(self.value)


HEADER = f"{'key':<26}{'value':>9}  {'spread':<19}{'runs':>4}  {'goal':<8}{'met':<5}notes"


def line(figure: Figure) -> str:
    """Return a figure's line of the table."""
    low, high = figure.spread
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    return (
        f"{figure.key:<26}{number(figure.value):>9}  {f'{number(low)} … {number(high)}':<19}{len(figure.values):>4}  "
        f"{figure.goal or ''!s:<8}{met:<5}{figure.note}"
    )


def number(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(path: Path, figures: Iterable[Figure], about: dict[str, Any]) -> None:
    """Write all figures as JSON: each with its values, so that nothing has to be taken on trust."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        **about,
        "figures": {
            figure.key: {
                "value": round(figure.value, 4),
                "spread": [round(end, 4) for end in figure.spread],
                "goal": str(figure.goal) if figure.goal else None,
                "met": figure.met,
                "values": [round(value, 4) for value in figure.values],
                "note": figure.note,
            }
            for figure in figures
        },
    }
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def in_turn(pairs: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Take so many pairs of measurements, one after the other; return what each found."""
    rounds = [[measure() for measure in measures] for _ in range(pairs)]
    return [list(found) for found in zip(*rounds, strict=True)]


def ratios(upper: Iterable[float], lower: Iterable[float]) -> tuple[float, ...]:
    """Divide the runs of each pair."""
    return tuple(one / other for one, other in zip(upper, lower, strict=True))


def rates(name: str, counts: Sequence[float]) -> str:
    """Write the median of some rates."""
    return f"{name} {median(counts):,.0f}/s"
