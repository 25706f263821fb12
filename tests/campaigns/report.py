"""What a campaign is, and the one file in which all campaigns report."""

import json
import operator
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from local.postgres import ROOT

PROVE = ROOT / "build" / "prove.json"
"""Where the figures of the latest run of each campaign lie, by its name."""

Figure = int | float | str | Mapping[str, int | float | str]
Figures = dict[str, Figure]

_RELATIONS: Mapping[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
}


class Campaign(Protocol):
    """A long experiment that tries to break a promise. A module of this package offers its own as ``CAMPAIGN``."""

    @property
    def name(self) -> str:
        """The name on the command line and in the report."""

    def run(self, seed: int, short: bool) -> Figures:
        """Carry it out: in minutes, or in its ``short`` form in seconds. The seed gives the same choices again."""

    def goals(self, figures: Figures) -> list[str]:
        """Return one sentence for each goal that the figures miss; an empty list means that the promise held."""


def missed(figures: Figures, goals: Mapping[str, str]) -> list[str]:
    """Hold figures against goals and say which are missed.

    Examples
    --------
    >>> missed({"lost_saved": 0, "saves": 90_000}, {"lost_saved": "== 0", "saves": ">= 100000"})
    ['saves is 90000, its goal is >= 100000']
    """
    sentences = []
    for name, goal in goals.items():
        relation, bound = goal.split()
        value = figures.get(name)
        if not isinstance(value, int | float) or not _RELATIONS[relation](value, float(bound)):
            sentences.append(f"{name} is {value}, its goal is {goal}")
    return sentences


def carry_out(campaign: Campaign, *, seed: int, short: bool, path: Path = PROVE) -> list[str]:
    """Run a campaign, print its seed and figures, write them down, and return the goals that it missed."""
    print(f"{campaign.name}: seed {seed}{', short form' if short else ''}", flush=True)
    started = time.monotonic()
    figures = campaign.run(seed, short)
    seconds = round(time.monotonic() - started, 1)
    failures = campaign.goals(figures)
    for name, value in figures.items():
        print(f"  {name}: {json.dumps(value)}")
    print(f"  {seconds} s")
    for failure in failures:
        print(f"  MISSED: {failure}")
    _write(path, campaign.name, {"seed": seed, "short": short, "seconds": seconds, **figures, "missed": failures})
    return failures


def _write(path: Path, name: str, report: Mapping[str, object]) -> None:
    """Put one campaign's report beside those of the others."""
    path.parent.mkdir(exist_ok=True)
    everything = json.loads(path.read_text()) if path.exists() else {}
    everything[name] = {**report, "python": platform.python_version()}
    path.write_text(json.dumps(everything, indent=2) + "\n")
