"""``make demo`` ends with 0 only when everything held."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from local import demo, scenario
from local.application import Application
from local.scenario import Case, Fate, Scenario

ROOT = Path(__file__).resolve().parents[2]
Play = Callable[[Application, Path], Scenario]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play with few files: what is tested is the verdict."""
    for name in ("SAVED_IMAGES", "SAVED_VIDEOS", "ORPHANED_IMAGES", "ORPHANED_VIDEOS"):
        monkeypatch.setattr(scenario, name, 3)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Application, Scenario], Scenario]], None]:
    """Change the scenario between playing and the first cycle."""
    play: Play = scenario.play

    def by(change: Callable[[Application, Scenario], Scenario]) -> None:
        monkeypatch.setattr(scenario, "play", lambda application, temp: change(application, play(application, temp)))

    return by


def test_the_demo_holds_and_is_readable_in_a_log() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "local.demo"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"layers/storage_cleanup{os.pathsep}."},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert "✓" in run.stdout
    assert "✗" not in run.stdout
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80


@pytest.mark.usefixtures("small")
def test_a_missed_expectation_is_named_and_ends_with_1(
    spoil: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    lost = uuid4()
    phantom = Case("never made", Fate.STAYS, "to be missed", frozenset({lost}))
    spoil(lambda application, played: replace(played, cases=[*played.cases, phantom]))
    assert demo.main() == 1
    assert f"missing: {lost}" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_a_saved_file_with_other_bytes_ends_with_1(
    spoil: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def overwrite(application: Application, played: Scenario) -> Scenario:
        bucket, name = next(file for case in played.cases if case.saved for file in case.files)
        application.upload(bucket, name, b"other pixels", age=scenario.OLD)
        return played

    spoil(overwrite)
    assert demo.main() == 1
    assert "other bytes" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_without_the_guard_nothing_goes_and_it_ends_with_1(
    spoil: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def disarm(application: Application, played: Scenario) -> Scenario:
        application._owner.execute("drop trigger storage_cleanup_asset_inserted on user_assets")
        return played

    spoil(disarm)
    assert demo.main() == 1
    shown = capsys.readouterr().out
    assert "status is failed, not succeeded" in shown
    assert "still there" in shown
    assert "it was accepted" in shown


@pytest.mark.usefixtures("small")
def test_a_directory_that_somebody_names_is_judged_by_the_true_time(tmp_path: Path) -> None:
    """The scenario's clock is ahead, for its own temporary files."""
    fresh = tmp_path / "storage-fresh"
    fresh.touch()
    with scenario.embedded(temp__directories=str(tmp_path)) as scene:
        answer = scene.functions(io.StringIO()).invoke("cleanup", {"action": "cleanup"})
    assert answer["phases"]["temp_files"]["reasons"]["kept"] == {"too_young": 1}
    assert fresh.exists()
