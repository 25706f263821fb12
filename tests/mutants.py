"""Mutation testing of what decides alone: paths, breaker, events, settings.

mutmut changes the code in small ways, and a change that no unit test notices is printed. It takes the name of a module
from its path below ``src``, so it works on a copy in ``build/mutants``. ``docs/mutants.md`` says which may survive.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "mutants"
PACKAGE = ROOT / "layers" / "storage_cleanup" / "storage_cleanup"
MUTATED = ("storage/paths.py", "cleanup/circuit_breaker.py", "events/*.py", "config/*.py")
CONFIGURATION = """\
[tool.mutmut]
source_paths = ["src"]
only_mutate = {mutated}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:cov"]
pytest_add_cli_args_test_selection = {tests}

[tool.pytest.ini_options]
pythonpath = ["."]
addopts = "--import-mode=importlib"
timeout = 120
"""
# What runs on import (the tables of fields and parameters) belongs to every test of its room, and runs anew for every
# mutant. The examples are the same every time, or a mutant dies in one run and survives the next.
CONFTEST = """\
import sys

import pytest
from hypothesis import settings
from mutmut.state import state

settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
settings.load_profile("mutants")
_ran_on_import = set()


def pytest_sessionstart():
    for name in [name for name in sys.modules if name.startswith(("storage_cleanup", "tests.unit"))]:
        del sys.modules[name]


def pytest_collection_finish():
    _ran_on_import.update(state()._stats)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    state()._stats.update(name for name in _ran_on_import if f"/{name.split('.')[1]}/" in item.nodeid)
"""


def prepare() -> None:
    """Copy the package and its unit tests to where mutmut can tell what is what."""
    shutil.rmtree(PLACE, ignore_errors=True)
    copied = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, PLACE / "src" / "storage_cleanup", ignore=copied)
    shutil.copytree(ROOT / "tests" / "unit", PLACE / "tests" / "unit", ignore=copied)
    (PLACE / "tests" / "conftest.py").write_text(CONFTEST)
    tests = [
        str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests" / "unit").rglob("test_*.py")) if _moves(path)
    ]
    mutated = [f"src/storage_cleanup/{pattern}" for pattern in MUTATED]
    (PLACE / "pyproject.toml").write_text(CONFIGURATION.format(mutated=mutated, tests=tests))


def _moves(test: Path) -> bool:
    """Tell whether a test needs nothing of the repository but the package."""
    return not re.search(r"__file__|^from (local|database)\b", test.read_text(), re.MULTILINE)


def main(names: list[str]) -> int:
    """Try every mutant, or those that patterns name, and print the survivors as diffs."""
    prepare()
    mutmut = Path(sys.executable).with_name("mutmut")
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    tried = subprocess.run([mutmut, "run", "--max-children", "2", *names], cwd=PLACE, env=environment, check=False)
    results = subprocess.run(
        [mutmut, "results"], cwd=PLACE, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    for line in results.splitlines():
        if line.endswith("not checked"):
            continue
        name = line.strip().partition(":")[0]
        print(f"\n{line.strip()}", flush=True)
        subprocess.run([mutmut, "show", name], cwd=PLACE, env=environment, check=False)
    return tried.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
