"""Phase 1: which temporary entries go, which stay, and why."""

import errno
import logging
import os
import shutil
import socket
import stat
import tarfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.cleanup.phases.temp_files import clean_temp_files
from storage_cleanup.model.account import PhaseResult

NOW = 2_000_000_000.0
"""So far ahead that every ctime is old: most tests tell entries apart by their mtime, which can be set."""
OLD, FRESH = NOW - 7200, NOW - 60
LONG_AGO = 1_000_000_000.0
MAX_AGE = timedelta(hours=1)


def never() -> None:
    return None


def clean(
    *directories: Path,
    now: float = NOW,
    budget: int = 1000,
    dry_run: bool = False,
    stop: Callable[[], str | None] = never,
) -> PhaseResult:
    order = Order(UUID(int=0), MAX_AGE, budget, page_size=1000, dry_run=dry_run, plan=None, stop=stop)
    return clean_temp_files(order, directories, ["storage-", "mat-debug-"], now=now)


def an_hour_from_now() -> float:
    """Return a time at which all that was changed so far is old, and all that is changed from now on is too young."""
    time.sleep(0.02)  # a file system's clock ticks slowly
    now = time.time()
    time.sleep(0.02)
    return now + MAX_AGE.total_seconds()


def touch(path: Path, when: float) -> Path:
    os.utime(path, (when, when), follow_symlinks=False)
    return path


def make_file(path: Path, when: float = OLD, size: int = 10) -> Path:
    path.write_bytes(b"x" * size)
    return touch(path, when)


def make_directory(path: Path, files: dict[str, float], when: float = OLD) -> Path:
    path.mkdir()
    for name, file_time in files.items():
        make_file(path / name, file_time)
    return touch(path, when)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_an_old_file_goes(tmp_path: Path) -> None:
    make_file(tmp_path / "storage-a", size=7)
    result = clean(tmp_path)
    assert (result.planned, result.deleted, result.bytes) == (1, 1, 7)
    assert names(tmp_path) == []


@pytest.mark.parametrize("age", [0, 60, 3600, -5])
def test_a_file_that_is_not_older_than_the_threshold_stays(tmp_path: Path, age: float) -> None:
    make_file(tmp_path / "storage-a", NOW - age)
    assert clean(tmp_path).kept == {"too_young": 1}
    assert names(tmp_path) == ["storage-a"]


@pytest.mark.parametrize("copy", [shutil.copy2, os.link, shutil.move])
def test_an_old_file_that_has_just_come_here_stays(tmp_path: Path, copy: Callable[..., object]) -> None:
    original = make_file(tmp_path / "original", LONG_AGO)
    later = an_hour_from_now()
    copy(original, tmp_path / "storage-a")
    assert (tmp_path / "storage-a").stat().st_mtime == LONG_AGO
    assert clean(tmp_path, now=later).kept == {"too_young": 1}
    assert "storage-a" in names(tmp_path)
    assert clean(tmp_path, now=an_hour_from_now()).deleted == 1


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_was_made_just_now_stays_whatever_its_mtime_says(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "storage-a"
    match kind:
        case "file":
            make_file(path, LONG_AGO)
        case "directory":
            make_directory(path, {}, LONG_AGO)
        case _:
            path.symlink_to("nowhere")
            touch(path, LONG_AGO)
    assert clean(tmp_path, now=time.time()).kept == {"too_young": 1}
    assert names(tmp_path) == ["storage-a"]


def test_an_archive_extracted_just_now_stays_whole(tmp_path: Path) -> None:
    make_directory(tmp_path / "storage-d", {"a": LONG_AGO, "b": LONG_AGO}, LONG_AGO)
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        archive.add(tmp_path / "storage-d", "storage-d")
    listed = make_directory(tmp_path / "listed", {})
    with tarfile.open(tmp_path / "archive.tar") as archive:
        archive.extractall(listed, filter="fully_trusted")
    assert (listed / "storage-d" / "a").stat().st_mtime == LONG_AGO
    assert clean(listed, now=time.time()).kept == {"too_young": 1}
    assert names(listed / "storage-d") == ["a", "b"]


def test_one_file_copied_just_now_keeps_the_old_directory_that_it_replaced_a_file_of(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "storage-d", {"a": LONG_AGO, "b": LONG_AGO}, LONG_AGO)
    original = make_file(tmp_path / "original", LONG_AGO)
    later = an_hour_from_now()
    shutil.copy2(original, directory / "a")
    assert clean(tmp_path, now=later).kept == {"too_young": 1}
    assert names(directory) == ["a", "b"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_change_of_metadata_starts_the_age_anew(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "storage-a"
    if kind == "file":
        make_file(path, LONG_AGO)
    else:
        make_directory(path, {"a": LONG_AGO}, LONG_AGO)
    later = an_hour_from_now()
    path.chmod(0o700)
    assert clean(tmp_path, now=later).kept == {"too_young": 1}
    assert names(tmp_path) == ["storage-a"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_all_hard_links_of_an_old_file_go_in_one_sweep(tmp_path: Path, *, dry_run: bool) -> None:
    """Removing one renews the ctime of the others."""
    first = make_file(tmp_path / "storage-a", LONG_AGO)
    directory = make_directory(tmp_path / "storage-d", {}, LONG_AGO)
    for link in (tmp_path / "storage-b", directory / "a", directory / "b", tmp_path / "precious"):
        os.link(first, link)
    result = clean(tmp_path, now=an_hour_from_now(), dry_run=dry_run)
    assert (result.deleted + result.would_delete, result.kept, result.failed) == (3, {}, {})
    assert names(tmp_path) == (["precious", "storage-a", "storage-b", "storage-d"] if dry_run else ["precious"])


@pytest.mark.parametrize("change", ["its mode", "its content", "a new link"])
def test_a_hard_link_that_somebody_changes_in_the_middle_of_a_sweep_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    listed = [make_directory(tmp_path / name, {}) for name in ("first", "second")]
    removed, changed = listed[0] / "storage-a", listed[1] / "storage-b"
    os.link(make_file(removed, LONG_AGO), changed)
    changes: dict[str, Callable[[], object]] = {
        "its mode": lambda: changed.chmod(0o600),
        "its content": lambda: make_file(changed, LONG_AGO, size=11),
        "a new link": lambda: os.link(changed, tmp_path / "c"),
    }
    when_first("stat", "storage-b", changes[change], monkeypatch)
    result = clean(*listed, now=an_hour_from_now())
    assert (result.deleted, result.kept) == (1, {"too_young": 1})
    assert names(listed[1]) == ["storage-b"]


def test_a_new_file_that_is_like_one_whose_last_link_just_went_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems give its inode to the next file at once."""
    listed = [make_directory(tmp_path / name, {}) for name in ("first", "second", "third")]
    os.link(make_file(listed[0] / "storage-a", LONG_AGO), listed[1] / "storage-b")
    new = make_file(listed[2] / "storage-c", LONG_AGO)

    def make_anew() -> None:
        new.unlink()
        make_file(new, LONG_AGO)

    when_first("stat", "storage-c", make_anew, monkeypatch)
    result = clean(*listed, now=an_hour_from_now())
    assert (result.deleted, result.kept) == (2, {"too_young": 1})


def test_a_name_without_a_prefix_is_no_candidate(tmp_path: Path) -> None:
    make_file(tmp_path / "other")
    make_directory(tmp_path / "data", {"storage-a": OLD})
    assert clean(tmp_path).planned == 0
    assert names(tmp_path) == ["data", "other"]


def test_an_old_directory_goes_with_everything_below_as_one_thing(tmp_path: Path) -> None:
    make_directory(tmp_path / "storage-d", {"a": OLD, "b": OLD})
    make_directory(tmp_path / "storage-d" / "inner", {"c": OLD})
    touch(tmp_path / "storage-d", OLD)
    result = clean(tmp_path)
    assert (result.planned, result.deleted, result.bytes) == (1, 1, 30)
    assert names(tmp_path) == []


def test_one_fresh_file_at_any_depth_keeps_the_whole_directory(tmp_path: Path) -> None:
    make_directory(tmp_path / "storage-d", {"a": OLD})
    make_directory(tmp_path / "storage-d" / "inner", {"b": FRESH})
    touch(tmp_path / "storage-d", OLD)
    assert clean(tmp_path).kept == {"too_young": 1}
    assert names(tmp_path / "storage-d") == ["a", "inner"]


def test_a_fresh_directory_stays_though_its_files_are_old(tmp_path: Path) -> None:
    make_directory(tmp_path / "storage-d", {"a": OLD}, when=FRESH)
    assert clean(tmp_path).kept == {"too_young": 1}


def test_a_link_goes_and_its_target_stays(tmp_path: Path) -> None:
    target = make_directory(tmp_path / "precious", {"a": OLD})
    for link in (tmp_path / "storage-link", tmp_path / "storage-broken"):
        link.symlink_to(target if link.name.endswith("link") else tmp_path / "nowhere")
        touch(link, OLD)
    assert clean(tmp_path).deleted == 2
    assert names(tmp_path) == ["precious"]
    assert names(target) == ["a"]


def test_a_fresh_link_to_something_old_stays(tmp_path: Path) -> None:
    (tmp_path / "storage-link").symlink_to(make_file(tmp_path / "precious"))
    touch(tmp_path / "storage-link", FRESH)
    assert clean(tmp_path).kept == {"too_young": 1}


def test_a_link_inside_a_directory_is_not_followed(tmp_path: Path) -> None:
    target = make_directory(tmp_path / "precious", {"a": OLD, "b": FRESH})
    directory = make_directory(tmp_path / "storage-d", {})
    (directory / "link").symlink_to(target)
    touch(directory / "link", OLD)
    touch(directory, OLD)
    assert clean(tmp_path).deleted == 1
    assert names(target) == ["a", "b"]


def test_sockets_and_pipes_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("storage-pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("storage-socket")
    for name in ("storage-pipe", "storage-socket"):
        touch(Path(name), OLD)
    assert clean(tmp_path).kept == {"special_file": 2}
    assert len(names(tmp_path)) == 2


def test_a_directory_with_a_pipe_in_it_stays_whole(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "storage-d", {"a": OLD})
    os.mkfifo(directory / "pipe")
    touch(directory / "pipe", OLD)
    touch(directory, OLD)
    assert clean(tmp_path).kept == {"special_file": 1}
    assert names(directory) == ["a", "pipe"]


def test_another_file_system_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directory(tmp_path / "storage-d", {"a": OLD})
    real = os.stat

    def elsewhere(name: Any, **options: Any) -> os.stat_result:
        status = real(name, **options)
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:])) if name == "storage-d" else status

    monkeypatch.setattr(os, "stat", elsewhere)
    assert clean(tmp_path).kept == {"other_file_system": 1}
    assert names(tmp_path / "storage-d") == ["a"]


def test_a_missing_directory_is_logged_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_file(tmp_path / "storage-a")
    with caplog.at_level(logging.WARNING):
        result = clean(tmp_path / "nowhere", tmp_path)
    assert "nowhere doesn't exist" in caplog.text
    assert (result.deleted, result.error) == (1, None)


def test_a_listed_directory_that_is_a_link_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    target = make_directory(tmp_path / "target", {"storage-a": OLD})
    (tmp_path / "listed").symlink_to(target)
    good = make_directory(tmp_path / "good", {"storage-a": OLD})
    result = clean(tmp_path / "listed", good)
    assert result.error == f"{tmp_path / 'listed'} is a symbolic link"
    assert result.deleted == 1
    assert names(target) == ["storage-a"]


def test_a_listed_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    assert "can't be read" in str(clean(make_file(tmp_path / "storage-a")).error)


def test_an_empty_directory_goes(tmp_path: Path) -> None:
    make_directory(tmp_path / "storage-d", {})
    assert clean(tmp_path).deleted == 1


def test_a_dry_run_decides_the_same_and_removes_nothing(tmp_path: Path) -> None:
    make_file(tmp_path / "storage-a")
    make_file(tmp_path / "storage-b", FRESH)
    make_directory(tmp_path / "storage-d", {"a": OLD, "b": OLD})
    result = clean(tmp_path, dry_run=True)
    assert (result.planned, result.deleted, result.would_delete, result.bytes) == (2, 0, 2, 30)
    assert (result.skipped, result.kept) == ({"dry_run": 2}, {"too_young": 1})
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize("dry_run", [False, True])
def test_no_more_goes_than_the_budget(tmp_path: Path, *, dry_run: bool) -> None:
    for number in range(5):
        make_file(tmp_path / f"storage-{number}")
    result = clean(tmp_path, budget=2, dry_run=dry_run)
    assert (result.deleted + result.would_delete, result.stopped) == (2, "limit_reached")
    assert len(names(tmp_path)) == (5 if dry_run else 3)


def test_a_budget_that_suffices_does_not_stop_the_phase(tmp_path: Path) -> None:
    make_file(tmp_path / "storage-a")
    make_file(tmp_path / "storage-b", FRESH)
    assert clean(tmp_path, budget=1).stopped is None


def test_a_reason_to_stop_is_heeded_before_the_next_entry(tmp_path: Path) -> None:
    for number in range(5):
        make_file(tmp_path / f"storage-{number}")
    answers = iter([None, None, "time_is_short"])
    result = clean(tmp_path, tmp_path, stop=lambda: next(answers))
    assert (result.deleted, result.stopped) == (2, "time_is_short")


def test_a_reason_to_stop_is_heeded_inside_a_directory(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "storage-d", {str(number): OLD for number in range(5)})
    answers = iter([None] * 8)  # one for the directory, five for looking through it, two for removing
    result = clean(tmp_path, stop=lambda: next(answers, "disabled"))
    assert result.stopped == "disabled"
    assert result.failed == {"stopped_halfway": 1}
    assert len(names(directory)) == 2
    assert result.bytes == 30


def when_first(call: str, name: str, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``action`` happen right before the first ``os.<call>`` of ``name``, as somebody else would."""
    real = getattr(os, call)
    done: list[bool] = []

    def interrupted(path: Any, *arguments: Any, **options: Any) -> Any:
        if path == name and not done:
            done.append(True)
            action()
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, interrupted)


def refuse(call: str, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    when_first(call, name, fail, monkeypatch)


def test_a_file_that_vanishes_before_it_is_looked_at_was_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "storage-a")
    when_first("stat", "storage-a", path.unlink, monkeypatch)
    result = clean(tmp_path)
    assert (result.planned, result.already_missing, result.bytes) == (1, 1, 0)


def test_a_file_that_vanishes_before_it_is_removed_was_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_file(tmp_path / "storage-a")
    when_first("unlink", "storage-a", lambda: path.rename(tmp_path / "x"), monkeypatch)
    result = clean(tmp_path)
    assert (result.planned, result.already_missing, result.bytes) == (1, 1, 0)


def test_files_that_vanish_inside_a_directory_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_directory(tmp_path / "storage-d", {"a": OLD, "b": OLD})
    when_first("unlink", "a", lambda: (directory / "a").rename(tmp_path / "x"), monkeypatch)
    result = clean(tmp_path)
    assert (result.deleted, result.bytes) == (1, 10)


def test_a_subdirectory_that_vanishes_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_directory(tmp_path / "storage-d", {})
    make_directory(directory / "inner", {})
    touch(directory, OLD)
    when_first("open", "inner", (directory / "inner").rmdir, monkeypatch)
    assert clean(tmp_path).planned == 1
    assert not directory.exists() or names(directory) == []


def test_a_fresh_file_that_appears_between_check_and_removal_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_directory(tmp_path / "storage-d", {"a": OLD})
    when_first("unlink", "a", lambda: make_file(directory / "new", FRESH), monkeypatch)
    result = clean(tmp_path)
    assert result.failed == {"changed_meanwhile": 1}
    assert names(directory) == ["new"]


def test_a_file_that_is_rewritten_between_check_and_removal_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_directory(tmp_path / "storage-d", {"a": OLD, "b": OLD})

    def rewrite_the_other() -> None:
        for path in directory.iterdir():
            make_file(path, FRESH)

    when_first("unlink", "a", rewrite_the_other, monkeypatch)
    when_first("unlink", "b", rewrite_the_other, monkeypatch)
    assert clean(tmp_path).failed == {"changed_meanwhile": 1}
    assert len(names(directory)) == 1


def test_an_old_file_that_is_copied_over_another_between_check_and_removal_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_directory(tmp_path / "storage-d", {"a": LONG_AGO, "b": LONG_AGO}, LONG_AGO)
    original = make_file(tmp_path / "original", LONG_AGO)

    def copy_over_both() -> None:
        for path in directory.iterdir():
            shutil.copy2(original, path)

    later = an_hour_from_now()
    when_first("unlink", "a", copy_over_both, monkeypatch)
    when_first("unlink", "b", copy_over_both, monkeypatch)
    assert clean(tmp_path, now=later).failed == {"changed_meanwhile": 1}
    assert len(names(directory)) == 1


@pytest.mark.parametrize("swapped", ["storage-d", "inner"])
@pytest.mark.parametrize("target_holds", ["the same names", "nothing"])
def test_a_directory_that_is_swapped_for_a_link_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str, target_holds: str
) -> None:
    precious = make_directory(tmp_path / "precious", {"a": OLD} if target_holds == "the same names" else {})
    listed = make_directory(tmp_path / "listed", {})
    directory = make_directory(listed / "storage-d", {})
    make_directory(directory / "inner", {"a": OLD})
    touch(directory, OLD)
    path = directory if swapped == "storage-d" else directory / "inner"

    def swap() -> None:
        path.rename(tmp_path / "moved")
        path.symlink_to(precious)

    before = names(precious)
    when_first("open", swapped, swap, monkeypatch)
    result = clean(listed)
    assert result.failed == {"changed_meanwhile": 1}
    assert names(precious) == before


def test_a_subdirectory_that_is_moved_out_while_it_is_walked_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = make_directory(tmp_path / "outside", {"b": OLD})
    listed = make_directory(tmp_path / "listed", {})
    directory = make_directory(listed / "storage-d", {"b": OLD})
    make_directory(directory / "inner", {"a": OLD})
    touch(directory, OLD)
    when_first("unlink", "a", lambda: (directory / "inner").rename(outside / "inner"), monkeypatch)
    result = clean(listed)
    assert result.failed == {"changed_meanwhile": 1}
    assert "b" in names(outside)


def test_what_may_not_be_removed_fails_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        make_file(tmp_path / f"storage-{name}")
    refuse("unlink", "storage-b", errno.EACCES, monkeypatch)
    result = clean(tmp_path)
    assert result.deleted == 2
    assert result.failed == {"permission_denied": 1}


def test_a_directory_that_could_only_be_emptied_in_part_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_directory(tmp_path / "storage-d", {"a": OLD, "b": OLD})
    refuse("unlink", "a", errno.EACCES, monkeypatch)
    result = clean(tmp_path)
    assert (result.planned, result.deleted) == (1, 0)
    assert result.failed == {"permission_denied": 1}


def test_another_error_is_named_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_file(tmp_path / "storage-a")
    refuse("unlink", "storage-a", errno.EBUSY, monkeypatch)
    assert clean(tmp_path).failed == {"os_error_ebusy": 1}


def test_a_failure_is_logged_with_path_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_file(tmp_path / "storage-a")
    refuse("unlink", "storage-a", errno.EACCES, monkeypatch)
    with caplog.at_level(logging.WARNING):
        clean(tmp_path)
    assert "storage-a" in caplog.text
    assert "permission_denied" in caplog.text


def test_a_tree_deeper_than_any_limit_goes_with_few_descriptors(tmp_path: Path) -> None:
    depth = 3000
    here = os.open(tmp_path, os.O_RDONLY)
    for name in ["storage-d"] + ["x" * 100] * depth:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.utime(below, (OLD, OLD))
        os.close(here)
        here = below
    for _ in range(depth + 1):  # making a child has refreshed each parent
        os.utime(here, (OLD, OLD))
        above = os.open("..", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = above
    os.close(here)
    assert clean(tmp_path).deleted == 1


def test_no_descriptor_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directory(tmp_path / "storage-old", {"a": OLD})
    make_directory(tmp_path / "storage-fresh", {"a": FRESH})
    make_directory(tmp_path / "storage-failing", {"b": OLD})
    refuse("unlink", "b", errno.EACCES, monkeypatch)
    before = len(list(Path("/proc/self/fd").iterdir()))
    clean(tmp_path, tmp_path / "nowhere")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


trees = st.recursive(
    st.sampled_from([OLD, FRESH]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def build(path: Path, tree: Any) -> None:
    if isinstance(tree, float):
        make_file(path, tree)
        return
    path.mkdir()
    for name, below in tree.items():
        build(path / name, below)
    touch(path, OLD)


def holds_fresh(tree: Any) -> bool:
    return tree == FRESH if isinstance(tree, float) else any(map(holds_fresh, tree.values()))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["storage-a", "storage-b", "mat-debug-c", "keep", "storag"]), trees))
def test_exactly_the_old_candidates_go(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    directory = tmp_path_factory.mktemp("t")
    for name, below in tree.items():
        build(directory / name, below)
    candidates = [name for name in tree if name.startswith(("storage-", "mat-debug-"))]
    kept = {name for name in tree if name not in candidates or holds_fresh(tree[name])}
    result = clean(directory)
    assert set(names(directory)) == kept
    assert result.examined == len(candidates)
    assert stat.S_ISDIR(directory.stat().st_mode)
