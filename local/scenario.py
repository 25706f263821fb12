"""A day in the sample application's life: everything that a cycle has to tell apart, and what must become of it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TextIO
from uuid import UUID

from local.application import Application, Link, Render
from local.functions import Functions
from local.stack import Stack, running_stack

SAVED_IMAGES, SAVED_VIDEOS = 850, 170
ORPHANED_IMAGES, ORPHANED_VIDEOS = 90, 30
ODD_NAME = "u/a b+c'(d)=e?.png"
UNLISTED_BUCKET = "avatars"

OLD = timedelta(hours=2)
FRESH = timedelta(minutes=10)
AHEAD = OLD
"""How far ahead the clock is that temporary files are judged by: what is made now is old then."""

File = tuple[str, str]
"""Bucket and name."""


class Fate(StrEnum):
    """What must become of something."""

    GOES = "goes"
    STAYS = "stays"


@dataclass(frozen=True)
class Case:
    """One kind of job and file, and what a cycle under the profile ``production`` must do with it.

    Attributes
    ----------
    because
        Why, for whoever reads the demo.
    reasons
        The reason that the system must give for each job that it looks at and keeps; jobs that it needn't look at
        have none.
    """

    title: str
    fate: Fate
    because: str
    jobs: frozenset[UUID]
    files: Mapping[File, bytes] = field(default_factory=dict)
    reasons: Mapping[UUID, str] = field(default_factory=dict)
    saved: bool = False


@dataclass(frozen=True)
class TempCase:
    """A temporary file or directory, and what a cycle must do with it."""

    title: str
    fate: Fate
    because: str
    path: Path


@dataclass(frozen=True)
class Scenario:
    """All that was made.

    Attributes
    ----------
    latecomer
        An orphan whose owner will try to save it when it has gone.
    """

    cases: Sequence[Case]
    temp: Sequence[TempCase]
    latecomer: Render

    def jobs(self, fate: Fate) -> set[UUID]:
        """Return the jobs with that fate."""
        return {job for case in self.cases if case.fate is fate for job in case.jobs}

    def files(self, fate: Fate) -> dict[File, bytes]:
        """Return the files with that fate, and their bytes."""
        return {file: content for case in self.cases if case.fate is fate for file, content in case.files.items()}

    @property
    def reasons(self) -> dict[UUID, str]:
        """The reason for each job that must be looked at and kept."""
        return {job: reason for case in self.cases for job, reason in case.reasons.items()}


@dataclass(frozen=True)
class Scene:
    """A running stack on which the scenario has been played.

    Attributes
    ----------
    ahead
        How far ahead its clock for temporary files is.
    """

    stack: Stack
    application: Application
    scenario: Scenario
    ahead: timedelta

    def functions(self, log: TextIO) -> Functions:
        """Return the functions of the stack; ``log`` takes what they print."""
        return Functions(self.stack.aws, log, ahead=self.ahead)


@contextmanager
def embedded(**parameters: str) -> Iterator[Scene]:
    """Start an embedded stack, play the scenario, and write the parameters: defaults and those given."""
    with (
        running_stack() as stack,
        closing(Application(stack.database, stack.storage.url, stack.keys.service_role)) as application,
    ):
        directory = stack.directory / "temp"
        scenario = play(application, directory)
        stack.put_parameters("storage_cleanup_worker", **{"temp__directories": str(directory), **parameters})
        # Other people's directories are judged by the true time.
        ahead = timedelta(0) if "temp__directories" in parameters else AHEAD
        yield Scene(stack, application, scenario, ahead)


def play(application: Application, temp: Path) -> Scenario:
    """Make everything: renders, saves, and temporary files below ``temp``, which must not exist yet."""
    latecomer = application.render()
    return Scenario(
        cases=[
            *_orphans(application, latecomer),
            *_saved(application),
            *_in_progress(application),
            *_without_file(application),
            *_shared(application),
            *_not_ours(application),
        ],
        temp=_temporary(temp),
        latecomer=latecomer,
    )


# -- jobs and files ----------------------------------------------------------------------------------------------------


def _orphans(application: Application, latecomer: Render) -> Iterator[Case]:
    nobody = "nobody saved it"
    many = [
        *application.render_files(ORPHANED_IMAGES),
        *application.render_files(ORPHANED_VIDEOS, bucket="videos"),
        latecomer,
    ]
    yield _case("unsaved, signed URLs", Fate.GOES, nobody, many)
    relative = [application.render(link=Link.SIGNED_RELATIVE, bucket=bucket) for bucket in ("images", "videos")]
    yield _case("unsaved, relative URLs", Fate.GOES, nobody, relative)
    public = [application.render(link=Link.PUBLIC, bucket="videos"), application.render(link=Link.AUTHENTICATED)]
    yield _case("unsaved, public and private URLs", Fate.GOES, nobody, public)
    odd = [application.render(name=ODD_NAME, bucket=bucket) for bucket in ("images", "videos")]
    yield _case("unsaved, names with space, + and ?", Fate.GOES, nobody, odd)
    regretted = application.render()
    application.unsave(application.save(regretted))
    yield _case("saved, asset deleted since", Fate.GOES, "nobody has it saved now", [regretted])


def _saved(application: Application) -> Iterator[Case]:
    somebody = "somebody saved it"
    many = [*application.render_files(SAVED_IMAGES), *application.render_files(SAVED_VIDEOS, bucket="videos")]
    application.save_many(many)
    yield _case("saved", Fate.STAYS, somebody, many, reason="saved")
    odd = [
        application.render(name=f"saved/{ODD_NAME}", bucket="images"),
        application.render(name="saved/" + ODD_NAME.replace("?", "+"), bucket="videos", link=Link.PUBLIC),
    ]
    for render in odd:
        application.save(render)
    yield _case("saved, names with space, + and ?", Fate.STAYS, somebody, odd, reason="saved")
    binned = application.render(link=Link.SIGNED_RELATIVE)
    application.soft_delete(application.save(binned))
    yield _case("saved, asset soft-deleted", Fate.STAYS, "that can be taken back", [binned], reason="saved")


def _in_progress(application: Application) -> Iterator[Case]:
    fresh = [application.render(age=FRESH), application.render(age=FRESH, bucket="videos")]
    yield _case("unsaved, rendered 10 minutes ago", Fate.STAYS, "younger than 60 minutes", fresh)
    late = application.render()
    application.age_file(late.bucket, late.name, FRESH)
    yield _case("old job, completed 10 minutes ago", Fate.STAYS, "its file is young", [late], reason="file_too_young")
    unfinished = [application.render(status="running"), application.render(status="failed")]
    yield _case("running and failed", Fate.STAYS, "not completed", unfinished)


def _without_file(application: Application) -> Iterator[Case]:
    empty = frozenset({application.add_job(output_url=None), application.add_job(output_url="")})
    yield Case("completed without a URL", Fate.GOES, "nobody saved it", empty)
    url = application.link("images", "u/gone.png", Link.PUBLIC)
    lost = frozenset({application.add_job(output_url=url)})
    yield Case("unsaved, file missing already", Fate.GOES, "only its row is left", lost)


def _shared(application: Application) -> Iterator[Case]:
    saved = application.render()
    application.save(saved)
    other = application.add_job(output_url=application.link(saved.bucket, saved.name, Link.PUBLIC))
    yield Case(
        title="two jobs, one file, one saved",
        fate=Fate.STAYS,
        because="somebody saved one",
        jobs=frozenset({saved.job_id, other}),
        files={_file(saved): saved.content},
        reasons={saved.job_id: "saved", other: "shared_with_kept_job"},
        saved=True,
    )
    first = application.render()
    second = application.add_job(output_url=application.link(first.bucket, first.name, Link.PUBLIC))
    jobs = frozenset({first.job_id, second})
    yield Case("two jobs, one file, none saved", Fate.GOES, "nobody saved either", jobs, {_file(first): first.content})


def _not_ours(application: Application) -> Iterator[Case]:
    foreign = application.add_job(output_url="https://elsewhere.example/storage/v1/object/public/images/a.png")
    yield _refused("URL on a foreign host", "another project's", foreign, "foreign_host")
    application.create_bucket(UNLISTED_BUCKET)
    unlisted = application.render(bucket=UNLISTED_BUCKET)
    yield _case("file in an unlisted bucket", Fate.STAYS, "not in buckets", [unlisted], reason="unlisted_bucket")
    garbage = application.add_job(output_url="not a url at all")
    yield _refused("garbage as a URL", "not understood", garbage, "not_a_storage_path")


def _case(title: str, fate: Fate, because: str, renders: Sequence[Render], *, reason: str | None = None) -> Case:
    return Case(
        title=title,
        fate=fate,
        because=because,
        jobs=frozenset(render.job_id for render in renders),
        files={_file(render): render.content for render in renders},
        reasons={render.job_id: reason for render in renders} if reason else {},
        saved=reason == "saved",
    )


def _refused(title: str, because: str, job: UUID, reason: str) -> Case:
    return Case(title, Fate.STAYS, because, frozenset({job}), reasons={job: reason})


def _file(render: Render) -> File:
    return render.bucket, render.name


# -- temporary files ---------------------------------------------------------------------------------------------------


def _temporary(directory: Path) -> list[TempCase]:
    """Fill the directory; what links point at lies beside it."""
    directory.mkdir()
    target = _write(directory.with_name("behind-the-link.png"), OLD)
    link = directory / "storage-link.png"
    link.symlink_to(target)
    _age(link, OLD)
    old_tree, fresh_tree = directory / "storage-old-tree", directory / "mat-debug-fresh-tree"
    for tree, age in ((old_tree, OLD), (fresh_tree, FRESH)):
        (tree / "deep" / "deeper").mkdir(parents=True)
        _write(tree / "deep" / "deeper" / "frame.png", age)
        for below in (tree / "deep" / "deeper", tree / "deep", tree):
            _age(below, OLD)
    return [
        TempCase("old file", Fate.GOES, "older than 60 minutes", _write(directory / "storage-old.png", OLD)),
        TempCase("fresh file", Fate.STAYS, "younger than 60 minutes", _write(directory / "storage-fresh.png", FRESH)),
        TempCase("old nested directory", Fate.GOES, "all below it is old", old_tree),
        TempCase("old directory, fresh content", Fate.STAYS, "a file in it is young", fresh_tree),
        TempCase("old symbolic link", Fate.GOES, "the link alone goes", link),
        TempCase("what the link points at", Fate.STAYS, "links aren't followed", target),
        TempCase("old file, other prefix", Fate.STAYS, "not this system's", _write(directory / "other.png", OLD)),
    ]


def _write(path: Path, age: timedelta) -> Path:
    path.write_text(f"pixels of {path.name}")
    _age(path, age)
    return path


def _age(path: Path, age: timedelta) -> None:
    """Give a file an age, of at most ``AHEAD``, by the clock that is ahead."""
    then = time.time() + (AHEAD - age).total_seconds()
    os.utime(path, (then, then), follow_symlinks=False)
