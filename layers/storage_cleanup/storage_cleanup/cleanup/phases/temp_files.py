"""Phase 1: old temporary files on the file system.

Everything happens relative to an open descriptor of a listed directory, one path segment at a time and never through
a symbolic link, so that no rename or link that somebody plants meanwhile leads anywhere else. A directory is looked
through before anything in it is touched, and every entry is judged again right before it goes.
"""

import errno
import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from storage_cleanup.cleanup.log import PhaseLog
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.model.account import PhaseResult
from storage_cleanup.model.reasons import OS_FAMILY, Reason
from storage_cleanup.model.vocabulary import Phase

_logger = PhaseLog(__name__, Phase.TEMP_FILES)

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHANGED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})


def clean_temp_files(order: Order, directories: Sequence[Path], prefixes: Sequence[str], *, now: float) -> PhaseResult:
    """Remove the entries of ``directories`` that have one of ``prefixes`` and are older than the order's age.

    A directory counts as one thing, and goes only when it and everything below it is older. A symbolic link goes as
    what it is, never its target; a socket, pipe or device stays, and so does everything on another file system.

    The age is judged by the later of ``mtime`` and ``ctime``: copies and archives bring an old ``mtime`` along, but
    nobody can set ``ctime``. Whatever else renews it (chmod, chown, rename, a new hard link) starts the age anew.

    Parameters
    ----------
    directories
        Their direct children are candidates. One that is missing is logged; one that is a symbolic link or can't be
        read is named in the result's ``error``, and the others go on.
    now
        Seconds since 1970.
    """
    started = time.monotonic()
    sweep = _Sweep(order, tuple(prefixes), oldest_kept=now - order.max_age.total_seconds())
    try:
        for directory in directories:
            if sweep.result.stopped:
                break
            sweep.clean(directory)
    except OSError as error:
        _logger.exception("Phase temp_files failed")
        sweep.result.error = str(error)
    sweep.result.seconds = time.monotonic() - started
    return sweep.result


class _Outcome(Enum):
    DELETED = auto()
    ALREADY_MISSING = auto()
    WOULD_DELETE = auto()


class _KeptError(Exception):
    """The entry is kept, for a reason that is in order."""


class _FailedError(Exception):
    """The entry should have gone and didn't, or not as a whole."""


class _StoppedError(Exception):
    """The phase ends here."""


@dataclass
class _Sweep:
    """One run of the phase: what it may do, and its account so far."""

    order: Order
    prefixes: tuple[str, ...]
    oldest_kept: float
    result: PhaseResult = field(default_factory=PhaseResult)
    siblings: set[tuple[int, ...]] = field(default_factory=set)
    """Files that lost a hard link to this sweep and have others: that alone has renewed their ctime."""

    def clean(self, directory: Path) -> None:
        """Decide about every candidate in ``directory``."""
        try:
            root = os.open(directory, _OPEN_DIRECTORY)
        except FileNotFoundError:
            _logger.warning("Temporary directory %s doesn't exist", directory)
            return
        except OSError as error:
            self._report_unusable(directory, error)
            return
        with _closing(root):
            device = os.fstat(root).st_dev
            try:
                # Lazily: a directory may hold more names than memory.
                with os.scandir(root) as entries:
                    for entry in entries:
                        if entry.name.startswith(self.prefixes):
                            self._decide(_Entry(root, entry.name, device), directory)
            except _StoppedError as reason:
                self.result.stopped = str(reason)
            except OSError as error:
                self._report_unusable(directory, error)

    def _report_unusable(self, directory: Path, error: OSError) -> None:
        reason = "is a symbolic link" if directory.is_symlink() else f"can't be read: {_reason(error)}"
        sentence = f"{directory} {reason}"
        _logger.error("Temporary directory %s", sentence)
        self.result.error = f"{self.result.error}; {sentence}" if self.result.error else sentence

    def _decide(self, entry: "_Entry", directory: Path) -> None:
        """Give one candidate its outcome, in the account and in the log."""
        self._ask_to_stop()
        path = directory / entry.name
        try:
            outcome = self._treat(entry)
        except _KeptError as reason:
            self.result.kept[str(reason)] += 1
            _logger.debug("Kept temporary %r: %s", str(path), reason)
        except _FailedError as reason:
            self.result.failed[str(reason)] += 1
            _logger.warning("Couldn't delete temporary %r: %s", str(path), reason)
        else:
            self._count(outcome)
            _logger.debug("Temporary %r: %s", str(path), outcome.name.lower())

    def _count(self, outcome: _Outcome) -> None:
        match outcome:
            case _Outcome.DELETED:
                self.result.deleted += 1
            case _Outcome.ALREADY_MISSING:
                self.result.already_missing += 1
            case _Outcome.WOULD_DELETE:
                self.result.skipped[Reason.DRY_RUN] += 1

    def _treat(self, entry: "_Entry") -> _Outcome:
        with _failures():
            try:
                status = entry.status()
                self._judge(status, entry.device)
                if not stat.S_ISDIR(status.st_mode):
                    return self._remove_file(entry, status)
                with _closing(_open_same(entry.name, entry.parent, status)) as descriptor:
                    return self._remove_directory(entry, descriptor)
            except FileNotFoundError:
                return _Outcome.ALREADY_MISSING

    def _judge(self, status: os.stat_result, device: int) -> None:
        """Refuse what has to stay whatever its name is."""
        # Only directories tell: overlayfs gives files the device of their layer. A file that is a mount point is busy.
        if stat.S_ISDIR(status.st_mode) and status.st_dev != device:
            raise _KeptError(Reason.OTHER_FILE_SYSTEM)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise _KeptError(Reason.SPECIAL_FILE)
        if max(status.st_mtime, self._ctime(status)) >= self.oldest_kept:
            raise _KeptError(Reason.TOO_YOUNG)

    def _ctime(self, status: os.stat_result) -> float:
        """Return when somebody else last changed the entry, as far as it matters: what this sweep did doesn't."""
        return status.st_mtime if _traits(status, status.st_nlink) in self.siblings else status.st_ctime

    def _unlink(self, name: str, parent: int, status: os.stat_result) -> None:
        os.unlink(name, dir_fd=parent)
        self.siblings.discard(_traits(status, status.st_nlink))
        if status.st_nlink > 1:
            self.siblings.add(_traits(status, status.st_nlink - 1))

    def _remove_file(self, entry: "_Entry", status: os.stat_result) -> _Outcome:
        self._spend_budget()
        if not self.order.dry_run:
            self._unlink(entry.name, entry.parent, status)
        self.result.bytes += status.st_size
        return _Outcome.WOULD_DELETE if self.order.dry_run else _Outcome.DELETED

    def _remove_directory(self, entry: "_Entry", descriptor: int) -> _Outcome:
        size = self._size_if_all_old(descriptor, entry.device)
        self._spend_budget()
        if self.order.dry_run:
            self.result.bytes += size
            return _Outcome.WOULD_DELETE
        self._empty(descriptor, entry.device)
        os.rmdir(entry.name, dir_fd=entry.parent)
        return _Outcome.DELETED

    def _size_if_all_old(self, descriptor: int, device: int) -> int:
        """Return the bytes of the files below a directory; refuse it for the first entry that has to stay."""
        size = 0
        with closing(_walk(descriptor)) as visits:
            for visit in visits:
                self._ask_to_stop()
                self._judge(visit.status, device)
                if not stat.S_ISDIR(visit.status.st_mode):
                    size += visit.status.st_size
        return size

    def _empty(self, descriptor: int, device: int) -> None:
        """Remove everything below a directory, entry by entry, up to the first that turns out to have to stay."""
        with closing(_walk(descriptor)) as visits:
            for visit in visits:
                with suppress(FileNotFoundError):
                    self._remove_visited(visit, device)
                # Asked behind an entry, not before it: asking takes time, and the next status must be fresh.
                self._ask_to_stop_halfway()

    def _remove_visited(self, visit: "_Visit", device: int) -> None:
        if visit.leaving:
            os.rmdir(visit.name, dir_fd=visit.parent)
            return
        try:
            self._judge(visit.status, device)
        except _KeptError:
            raise _FailedError(Reason.CHANGED_MEANWHILE) from None
        if not stat.S_ISDIR(visit.status.st_mode):
            self._unlink(visit.name, visit.parent, visit.status)
            self.result.bytes += visit.status.st_size

    def _spend_budget(self) -> None:
        if self.result.deleted + self.result.would_delete >= self.order.budget:
            raise _StoppedError(Reason.LIMIT_REACHED)

    def _ask_to_stop(self) -> None:
        if reason := self.order.stop():
            raise _StoppedError(reason)

    def _ask_to_stop_halfway(self) -> None:
        """Stop inside a directory that has lost some entries already: it needs an outcome of its own."""
        if reason := self.order.stop():
            self.result.stopped = reason
            raise _FailedError(Reason.STOPPED_HALFWAY)


@dataclass(frozen=True)
class _Entry:
    """A candidate: its name in the listed directory that ``parent`` has open, and that directory's device."""

    parent: int
    name: str
    device: int

    def status(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)


@dataclass(frozen=True)
class _Visit:
    """An entry below a directory; ``leaving`` when it is a directory whose content has been visited."""

    parent: int
    name: str
    status: os.stat_result
    leaving: bool = False


@dataclass
class _Level:
    """A directory on the way down: its name and status, and the names in it that are still to be visited."""

    name: str
    status: os.stat_result
    names: list[str]


def _walk(descriptor: int) -> Generator[_Visit, None, None]:
    """Visit everything below an open directory, a directory before and after its content.

    At most two descriptors are open at any depth: the way back up is ``..``, held against where it must lead.
    Entries that vanish meanwhile are left out. Each status is fresh when it is yielded.
    """
    here = os.dup(descriptor)
    levels = [_Level("", os.fstat(here), _names(here))]
    try:
        while levels:
            level = levels[-1]
            if level.names:
                name = level.names.pop()
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=here, follow_symlinks=False)
                    yield _Visit(here, name, status)
                    if stat.S_ISDIR(status.st_mode):
                        here = _exchange(here, _open_same(name, here, status))
                        levels.append(_Level(name, status, _names(here)))
                continue
            levels.pop()
            if levels:
                here = _exchange(here, _open_parent(here, levels[-1].status))
                yield _Visit(here, level.name, level.status, leaving=True)
    finally:
        os.close(here)


def _traits(status: os.stat_result, links: int) -> tuple[int, ...]:
    """Return what a file with that many links is known by: more than its inode, which another may get meanwhile."""
    owner = status.st_uid, status.st_gid
    return status.st_dev, status.st_ino, status.st_mode, *owner, status.st_size, status.st_mtime_ns, links


def _names(descriptor: int) -> list[str]:
    """Return the names in a directory, all at once: some file systems lose track when entries go meanwhile."""
    try:
        return os.listdir(descriptor)
    except FileNotFoundError:  # the directory itself is gone
        return []


def _exchange(old: int, new: int) -> int:
    os.close(old)
    return new


def _open_same(name: str, parent: int, status: os.stat_result) -> int:
    """Open a directory, and make sure that it is still the one that ``status`` was taken of."""
    descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    if os.path.samestat(os.fstat(descriptor), status):
        return descriptor
    os.close(descriptor)
    raise _FailedError(Reason.CHANGED_MEANWHILE)


def _open_parent(child: int, status: os.stat_result) -> int:
    """Open the way back up, and make sure that it leads to where the way down came from."""
    try:
        return _open_same("..", child, status)
    except FileNotFoundError:
        raise _FailedError(Reason.CHANGED_MEANWHILE) from None


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _failures() -> Iterator[None]:
    """Translate what the operating system says into a reason."""
    try:
        yield
    except OSError as error:
        raise _FailedError(_reason(error)) from error


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return Reason.PERMISSION_DENIED
    if error.errno in _CHANGED:
        return Reason.CHANGED_MEANWHILE
    return f"{OS_FAMILY}{errno.errorcode.get(error.errno or 0, 'unknown').lower()}"
