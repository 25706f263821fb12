"""Where the time goes: CPU microseconds an object, by process. It explains what the ratios can't."""

import time
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]

from benchmarks import cycles
from benchmarks.figures import Figure
from benchmarks.project import Ground


def profile(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Drain a backlog, and read the processors' accounts before and after."""
    count, runs = (2000, 1) if quick else (40_000, 3)
    shares: dict[str, list[float]] = {"cycle": [], "database": [], "storage": []}
    rates = []
    for _ in range(runs):
        with ground.project() as project:
            project.seed(count, stored=False)
            before, cycle = _accounts(str(ground.directory)), time.process_time()
            run = cycles.run(project, expected=count)
            cycle = time.process_time() - cycle
            after = _accounts(str(ground.directory))
        spent = {"cycle": cycle, **{name: after[name] - before[name] for name in before}}
        for name, seconds in spent.items():
            shares[name].append(seconds / count * 1e6)
        rates.append(run.rate)
    note = f"{sum(rates) / runs:,.0f} objects/s"
    for name, values in shares.items():
        yield Figure(f"cpu_us_{name}", tuple(values), note)


def _accounts(directory: str) -> dict[str, float]:
    """Return the CPU seconds that PostgreSQL and the emulator of one stack have taken, ended backends included."""
    families: dict[str, dict[int, psutil.Process]] = {"database": {}, "storage": {}}
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if "/bin/postgres" in command and directory in command:
            family = families["database"]
        elif "local.storage_emulator" in command and process.ppid() == psutil.Process().pid:
            family = families["storage"]
        else:
            continue
        family |= {each.pid: each for each in (process, *process.children(recursive=True))}
    # Parents last: they have the accounts of children that end meanwhile.
    return {name: sum(map(_seconds, reversed(family.values()))) for name, family in families.items()}


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # its parent, which is asked last, has its account
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
