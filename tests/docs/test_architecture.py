"""docs/architecture.md names what there is: functions of Python and SQL, paths, rooms, and who may touch what."""

import re
import tomllib
from collections.abc import Iterator
from pkgutil import iter_modules, resolve_name

import storage_cleanup
from local.postgres import ROOT

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
    for file in ("docs/architecture.md", "CONTRIBUTING.md"):
        assert order in (ROOT / file).read_text(encoding="utf-8"), f"{file} doesn't have {order}"


def test_who_imports_what_alone_is_the_contracts() -> None:
    touches = dict(_ROOM.findall(PAGE))
    alone = {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in touches.items() if "no other room" in cell}
    protected = {
        each["allowed_importers"][0].removeprefix("storage_cleanup."): set(each["protected_modules"])
        for each in CONTRACTS
        if each["type"] == "protected"
    }
    assert alone == protected
