"""What is installed: locks that are current and name no host; uv uses the index that pip is configured for."""

import importlib.util
import os
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"requirements_{name}", ROOT / f"requirements/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return lock.py, at work on a copy of the project's locks."""
    module = load("lock")
    for path in (Path("pyproject.toml"), *module.LOCKS.values()):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_locks_are_current(lock: ModuleType) -> None:
    assert lock.stale() == []


def test_a_group_that_was_changed_makes_its_lock_stale(lock: ModuleType) -> None:
    replace(lock.ROOT / "pyproject.toml", '"pygal"', '"pygal>=3.1"')
    assert lock.stale() == ["layers/dependencies/requirements.txt isn't made from the group runtime as it is now"]
    assert lock.main(["--check"]) == 1


def test_what_is_tested_is_what_runs(lock: ModuleType) -> None:
    replace(lock.ROOT / lock.RUNTIME, "jinja2==", "jinja2==0.")
    (problem,) = lock.stale()
    assert "has jinja2==0." in problem


def test_every_pin_has_a_hash_and_no_lock_names_a_host(lock: ModuleType) -> None:
    for path in lock.LOCKS.values():
        text = (ROOT / path).read_text()
        assert "://" not in text
        pins = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
        assert pins
        assert [pin for pin in pins if not HASH.search(pin)] == []


def test_uv_gets_what_pip_is_configured_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\n"
        "index-url = https://one.invalid/simple\n"
        "extra-index-url =\n    https://two.invalid/simple\n    https://three.invalid/simple\n"
        "find-links = /wheels /more\n"
        "[install]\n"
        "trusted-host = one.invalid\n"
        "[download]\n"
        "no-index = true\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "99")
    monkeypatch.setenv("PIP_INDEX_URL", "https://four.invalid/simple")
    uv = load("uv")
    found = uv.translate(uv.pip_settings())
    assert (
        found
        | {
            "UV_DEFAULT_INDEX": "https://four.invalid/simple",
            "UV_INDEX": "https://two.invalid/simple https://three.invalid/simple",
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_FIND_LINKS": "/wheels,/more",
            "UV_INSECURE_HOST": "one.invalid",
            "UV_HTTP_TIMEOUT": "99",
        }
        == found
    )
    assert "UV_NO_INDEX" not in found
