"""Lock the dependency groups of pyproject.toml, or look whether the locks are current.

Pins that still fit stay; ``--upgrade`` moves them all. ``--check`` needs no network: each lock begins with the
group that it was made from.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = Path("layers/dependencies/requirements.txt")
# In this order: the group dev is bound to the runtime's pins.
LOCKS = {"runtime": RUNTIME} | {name: Path(f"requirements/{name}.txt") for name in ("dev", "sam", "checkov", "uv")}
UV = (".venv-uv/bin/python", "requirements/uv.py")
# From pip's main index alone: an extra one may lack files, and so hashes, of other machines.
MAIN_INDEX = {"UV_INDEX": "", "UV_FIND_LINKS": ""}


def header(group: str) -> str:
    """Return the line that a lock of this group begins with."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    names = [each if isinstance(each, str) else f"({each['include-group']})" for each in groups[group]]
    return f"# {group}: {' '.join(names)}\n"


def lock(group: str, *options: str) -> None:
    """Resolve a group again and write its lock."""
    path = ROOT / LOCKS[group]
    command = [*UV, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-header", "--group", group, "--output-file", str(LOCKS[group]), *options]
    if group == "dev":
        command += ["--constraints", str(RUNTIME)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | MAIN_INDEX)
    path.write_text(header(group) + path.read_text())


def pins(path: Path) -> set[str]:
    """Return a lock's pins, with their markers and without their hashes."""
    return set(re.findall(r"^([a-z].*) \\$", (ROOT / path).read_text(), re.MULTILINE))


def stale() -> list[str]:
    """Return what is wrong with the locks, in words."""
    found = [
        f"{path} isn't made from the group {group} as it is now"
        for group, path in LOCKS.items()
        if not (ROOT / path).read_text().startswith(header(group))
    ]
    names = {pin.split("==")[0]: pin for pin in pins(LOCKS["dev"])}
    return found + [
        f"{RUNTIME} has {pin}, and {LOCKS['dev']} has {names.get(pin.split('==')[0])}"
        for pin in sorted(pins(RUNTIME) - pins(LOCKS["dev"]))
    ]


def main(arguments: list[str]) -> int:
    """Lock, or check."""
    if "--check" in arguments:
        problems = stale()
        for problem in problems:
            print(f"{problem}: run `make lock`", file=sys.stderr)
        return bool(problems)
    for group, path in LOCKS.items():
        lock(group, *arguments)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
