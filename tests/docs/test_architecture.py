"""docs/architecture.md names what there is: functions of Python and SQL, paths, rooms, and who may touch what."""

import io
import re
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from types import CodeType, FrameType

import pytest

import storage_cleanup
from local.application import Application
from local.clock import PRODUCTION, Clock
from local.functions import Functions
from local.postgres import ROOT
from tests.conftest import Servers

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
SQL = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "database").rglob("*.sql")))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
ROOMS = {module.name for module in iter_modules(storage_cleanup.__path__)}
_DOTTED = re.compile(rf"(?<![\w./])(?:storage_cleanup|{'|'.join(sorted(ROOMS))})(?:\.[a-zA-Z_]\w*)+")
_PATH = re.compile(r"(?<![\w./])[\w.-]+/[\w./-]*(?::\w+)?")
_ROOM = re.compile(r"^\| `(\w+)` \|.*\|(.*)\|$", re.MULTILINE)
SUPABASES = {"storage.objects"}
PARAMETERS = {"temp/directories"}


def exists(name: str) -> bool:
    """Tell whether the database, the package or the checkout has what the page calls so."""
    if "/" in name:
        path, _, function = name.partition(":")
        places = [place / path for place in (ROOT, ROOT / "layers/storage_cleanup/storage_cleanup")]
        found = next((place for place in places if place.exists()), None)
        return found is not None and (not function or f"\ndef {function}(" in found.read_text(encoding="utf-8"))
    if name.startswith("storage_cleanup."):
        return (
            re.search(rf"^create .*(function|table|trigger)( if not exists)? {name}\b", SQL, re.MULTILINE) is not None
        )
    try:
        resolve_name(f"storage_cleanup.{name}")
    except (ImportError, AttributeError):
        return False
    return True


def names() -> Iterator[tuple[int, str]]:
    """Yield every name that the page uses, with its line: in backticks, and in the picture."""
    is_picture = False
    for number, line in enumerate(PAGE.splitlines(), 1):
        is_picture = is_picture != line.startswith("```")
        for words in [line.replace("<br>", " ")] if is_picture else re.findall(r"`([^`]+)`", line):
            for name in _DOTTED.findall(words) + _PATH.findall(words):
                yield number, name


def test_everything_that_the_page_names_exists() -> None:
    named = list(names())
    assert len(named) > 60
    wrong = [
        f"docs/architecture.md:{line}: there is no {name}"
        for line, name in named
        if name not in SUPABASES | PARAMETERS and not exists(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rooms_are_those_of_the_package() -> None:
    listed = [room for room, _ in _ROOM.findall(PAGE)]
    assert sorted(listed) == sorted(ROOMS)


def test_the_order_of_the_rooms_is_the_contracts() -> None:
    layers = next(each for each in CONTRACTS if each.get("containers"))["layers"]
    order = f"`{' → '.join(layers).replace(' : ', ' | ')}`"
    assert order in PAGE, f"docs/architecture.md doesn't have {order}"


def test_who_imports_what_alone_is_the_contracts() -> None:
    touches = dict(_ROOM.findall(PAGE))
    alone = {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in touches.items() if "no other room" in cell}
    protected = {
        each["allowed_importers"][0].removeprefix("storage_cleanup."): set(each["protected_modules"])
        for each in CONTRACTS
        if each["type"] == "protected"
    }
    assert alone == protected


@contextmanager
def calls() -> Iterator[list[CodeType]]:
    """Collect what is called meanwhile, in every thread that starts meanwhile as well."""
    called: list[CodeType] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.append(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.mark.parametrize("way", ["event", "orphan"])
def test_a_real_cycle_takes_the_steps_in_the_order_of_the_page(servers: Servers, way: str, tmp_path: Path) -> None:
    section = PAGE.partition(f"## The way of an {way}\n")[2].partition("\n## ")[0]
    rows = "\n".join(line for line in section.splitlines() if re.match(r"\| \d", line))
    steps = [
        name for name in _DOTTED.findall(rows) if not name.startswith("storage_cleanup.") and name not in SUPABASES
    ]
    assert len(steps) > 8
    with closing(Application(servers.database, servers.storage.url, servers.keys.service_role)) as people:
        servers.put_parameters(temp__directories=str(tmp_path))
        functions = Functions(servers.aws, io.StringIO())
        Clock(servers.aws, functions).deploy(PRODUCTION)
        people.render()
        people.add_job(output_url="https://elsewhere.example/a.png")
        with calls() as called:
            functions.invoke("cleanup", {"action": "cleanup"})
    rest = iter(called)
    for step in steps:
        code = resolve_name(f"storage_cleanup.{step}").__code__
        assert code in rest, (
            f"docs/architecture.md, the way of an {way}: {step} isn't called after what stands before it"
        )
