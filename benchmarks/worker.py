"""``python -m benchmarks.worker ORDER``: one cycle in a process of its own; says when it is ready, and what it did."""

import json
import os
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import cycles
from benchmarks.project import Target
from local.functions import load_function


def main() -> None:
    """Import what the function imports, wait for the word, run a cycle, and tell."""
    order = json.loads(sys.argv[1])
    target = Target(**order["target"])
    answers, sys.stdout = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115 - the function's log goes nowhere
    load_function("cleanup")
    print("ready", file=answers, flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    run = cycles.run(target, in_flight=order["in_flight"])
    told = cycles.WorkerRun(started, time.monotonic(), run.files, run.rows, peak_mb())
    print(json.dumps(asdict(told)), file=answers, flush=True)


def peak_mb() -> float:
    """Return the most memory that this process ever had.

    From /proc where there is one: ``ru_maxrss`` of a process begins with that of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
