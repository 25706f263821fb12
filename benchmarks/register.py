"""The register: which command measures which figures, and the goal of each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.cold_start import cold_start
from benchmarks.cost import cost
from benchmarks.figures import Figure, Goal, at_least, at_most
from benchmarks.inserts import insert_overhead
from benchmarks.profile import profile
from benchmarks.references import unindexed_reference
from benchmarks.scale import history, memory
from benchmarks.throughput import throttled, vs_ceiling, vs_original_50ms, vs_original_local
from benchmarks.workers import workers


@dataclass(frozen=True)
class Measurement:
    """What ``python -m benchmarks NAME`` runs.

    Attributes
    ----------
    measure
        Yields the figures; takes where projects come from, and whether to be quick.
    goals
        The goal of each figure on the embedded stack; None for what is only told.
    goals_elsewhere
        The goals on somebody else's project. Empty where that can't be measured: it needs a server that can be told how
        to behave, or a database of its own.
    """

    measure: Callable[..., Iterator[Figure]]
    goals: Mapping[str, Goal | None]
    goals_elsewhere: Mapping[str, Goal] = field(default_factory=dict)

    def run(self, source: Any, *, quick: bool) -> Iterator[Figure]:
        """Measure, and hold each figure against its goal."""
        goals = self.goals if source.is_embedded else self.goals_elsewhere
        for figure in self.measure(source, quick=quick):
            yield replace(figure, goal=goals[figure.key])


MEASUREMENTS: Mapping[str, Measurement] = {
    "vs_original_local": Measurement(
        vs_original_local, {"vs_original_local": at_least(6)}, {"vs_original_local": at_least(14)}
    ),
    "vs_original_50ms": Measurement(
        vs_original_50ms, {"vs_original_50ms": at_least(150)}, {"vs_original_50ms": at_least(150)}
    ),
    "vs_ceiling": Measurement(
        vs_ceiling, {"vs_ceiling": at_least(0.6), "vs_ceiling_at_real_pace": None}, {"vs_ceiling": at_least(0.85)}
    ),
    "profile": Measurement(profile, {"cpu_us_cycle": None, "cpu_us_database": None, "cpu_us_storage": None}),
    "throttled": Measurement(throttled, {"throttled": at_least(0.5)}),
    "workers": Measurement(workers, {"workers_4_vs_1": at_least(3.2), "workers_4_contention": at_least(0.9)}),
    "history": Measurement(history, {"queries_slowest_ms_ratio": at_most(1), "idle_growth": at_most(2)}),
    "unindexed_reference": Measurement(unindexed_reference, {"unindexed_reference": at_most(1.5)}),
    "memory": Measurement(memory, {"memory_growth": at_most(1.15), "peak_rss_mb": at_most(200)}),
    "cold_start": Measurement(cold_start, {"cold_start_vs_imports": at_most(1.3)}),
    "cost": Measurement(
        cost,
        {
            "usd_per_million_orphans": None,
            "usd_idle_month_production": None,
            "usd_idle_month_testing": None,
            "usd_watching_month": None,
        },
    ),
    "insert_overhead": Measurement(
        insert_overhead,
        {"insert_overhead": at_most(1.1), "insert_overhead_bulk": None, "insert_overhead_async": None},
    ),
}


def table() -> str:
    """Return the register as text."""
    lines = ["name, and its figures with their goals:"]
    for name, measurement in MEASUREMENTS.items():
        figures = ", ".join(f"{key} {goal}" if goal else key for key, goal in measurement.goals.items())
        lines.append(f"  {name:<18} {figures}")
    return "\n".join(lines)
