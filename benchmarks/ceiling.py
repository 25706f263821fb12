"""The ceiling: the bare server. The same names, raw ``httpx``, and nothing remembered, checked or claimed."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.project import Project

#: Names in a request and requests in flight, as they are tried out.
SETTINGS: tuple[tuple[int, int], ...] = ((500, 2), (500, 4), (500, 8), (1000, 2), (1000, 4), (1000, 8))


def run(project: Project, names: Sequence[str], setting: tuple[int, int]) -> float:
    """Remove names; return how many a second."""
    size, in_flight = setting
    batches = [list(names[start : start + size]) for start in range(0, len(names), size)]
    with project.http() as storage, ThreadPoolExecutor(in_flight) as threads:

        def remove(batch: list[str]) -> None:
            storage.request("DELETE", f"/object/{project.bucket}", json={"prefixes": batch}).raise_for_status()

        started = time.perf_counter()
        list(threads.map(remove, batches))
        return len(names) / (time.perf_counter() - started)
