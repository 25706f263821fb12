"""Renders, saves, deletions, the clock, parameters and cycles, against a model of a few lines.

Hypothesis chooses what happens, in which order. The model says after each cycle which rows, files and assets there
must be; the project must have exactly these, and the cycle must answer that it did exactly this.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from local.application import Application, Link, Render
from local.postgres import Database
from storage_cleanup.model.account import PhaseResult
from storage_cleanup.model.vocabulary import Phase, Status
from tests.campaigns.ground import Ground, quiet
from tests.campaigns.report import Figures, missed
from tests.integration.direct import Project, cycle

_QUIET_MINUTES = 60  # how long a candidate rests that was kept for now
_WHICH = st.integers(0, 999)


# -- the model ---------------------------------------------------------------------------------------------------------


Moment = tuple[int, int]
"""A minute of the model's clock, and the order of what happened in it."""


@dataclass
class Job:
    """A render, as the model knows it.

    Attributes
    ----------
    url
        Whether its row has one.
    touched
        In which minute its file was uploaded; None when there is no file.
    since
        From when its age counts for the system; None when it is no candidate.
    going
        The system has claimed it: it can't be saved any more.
    """

    render: Render
    created: Moment
    completed: bool
    url: bool
    touched: int | None
    since: Moment | None
    saves: int = 0
    row: bool = True
    going: bool = False


@dataclass
class Parameters:
    """The parameters that change in the course of an example."""

    enabled: bool = True
    dry_run: bool = False
    files: bool = True
    rows: bool = True
    max_age: int = 60
    limit: int = 10_000

    def as_overrides(self) -> dict[str, str]:
        """Return them as settings know them."""
        return {
            "enabled": str(self.enabled).lower(),
            "dry_run": str(self.dry_run).lower(),
            "phases__storage_files": str(self.files).lower(),
            "phases__render_jobs": str(self.rows).lower(),
            "production__max_age_minutes": str(self.max_age),
            "limits__max_deletions_per_run": str(self.limit),
            "limits__max_saved_drop_percent": "100",
        }


@dataclass
class Model:
    """What a cycle must do: the whole specification, in the order in which it does it."""

    now: int = 0
    order: int = 0
    jobs: dict[UUID, Job] = field(default_factory=dict)

    def moment(self, later: int = 0) -> Moment:
        """Return this moment, or the one so many minutes later."""
        return self.now + later, self.order

    def cycle(self, parameters: Parameters) -> tuple[int, int, int]:
        """Play a cycle; return how many files it deletes and finds missing, and how many rows it deletes."""
        if not parameters.enabled or parameters.dry_run:
            return 0, 0, 0
        files, missing = self._remove_files(parameters) if parameters.files else (0, 0)
        rows = self._delete_rows(parameters, parameters.limit - files) if parameters.rows else 0
        return files, missing, rows

    def _remove_files(self, parameters: Parameters) -> tuple[int, int]:
        removed = missing = page = 0
        for job in self._due(parameters, url=True):
            if not page:  # what is kept for now in one page is kept at one moment
                page, self.order = parameters.limit - removed, self.order + 1
            if not page:
                break
            page -= 1
            if job.saves:
                job.since = None
            elif job.touched is not None and self.now - job.touched < parameters.max_age:
                job.since = self.moment(_QUIET_MINUTES - parameters.max_age)
            else:
                removed += job.touched is not None
                missing += job.touched is None
                job.going, job.touched, job.since = True, None, None
        return removed, missing

    def _delete_rows(self, parameters: Parameters, budget: int) -> int:
        for job in self._due(parameters, url=False):
            if not budget:
                break
            if not job.saves:
                job.going = True
                budget -= 1
            job.since = None
        gone = [job for job in self.jobs.values() if job.going and job.row]
        for job in gone:
            job.row = False
        return len(gone)

    def _due(self, parameters: Parameters, *, url: bool) -> list[Job]:
        due = [
            job
            for job in self.jobs.values()
            if job.since is not None and job.url == url and self.now - job.since[0] >= parameters.max_age
        ]
        return sorted(due, key=lambda job: (job.since, job.render.job_id))


# -- the real thing ----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A project that every example finds empty, and how often the two agreed."""

    ground: Ground
    database: Database
    people: Application
    figures: dict[str, int]

    def clear(self) -> None:
        """Leave nothing but one saved output: an empty set of saved assets would be a reason to stop."""
        with self.database.connect("supabase_admin") as superuser:
            superuser.execute(
                "truncate render_jobs, user_assets, storage.objects, storage_cleanup.run, storage_cleanup.deletion, "
                "storage_cleanup.candidate, storage_cleanup.plan_job"
            )
        self.people.save(Render(self.people.add_job(output_url=None, status="processing"), self.anchor, "", "", b""))

    anchor = UUID(int=1)

    def step(self, minutes: int) -> None:
        """Let so much time pass: everything that has a date becomes so much older."""
        with self.database.connect("supabase_admin", autocommit=False) as superuser:
            superuser.execute("set local session_replication_role = replica")
            for table, columns in _DATES.items():
                earlier = ", ".join(f"{column} = {column} - %(step)s" for column in columns)
                superuser.execute(f"update {table} set {earlier}".encode(), {"step": timedelta(minutes=minutes)})


_DATES = {
    "public.render_jobs": ["created_at"],
    "storage.objects": ["created_at", "updated_at"],
    "storage_cleanup.candidate": ["since", "completed_at"],
    "storage_cleanup.deletion": ["completed_at", "claimed_at", "attempted_at", "quiet_at", "updated_at"],
    "storage_cleanup.run": ["started_at", "finished_at"],
}


class Play(RuleBasedStateMachine):
    """What people and operators do, in the model and in the project at once."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.model, self.parameters = Model(), Parameters()
        self.assets: list[tuple[UUID, Job]] = []

    @initialize()
    def begin(self) -> None:
        """Find the project empty."""
        self.world.clear()
        self.world.figures["examples"] += 1

    @rule(number=st.integers(1, 4))
    def render(self, number: int) -> None:
        """Render outputs."""
        for _ in range(number):
            self._add(completed=True, url=True, file=True)

    @rule()
    def render_without_file(self) -> None:
        """Render an output whose file never arrives."""
        self._add(completed=True, url=True, file=False)

    @rule()
    def render_without_url(self) -> None:
        """Complete a job that has no output."""
        self._add(completed=True, url=False, file=False)

    @rule()
    def begin_to_render(self) -> None:
        """Add a job that is under way."""
        self._add(completed=False, url=False, file=False)

    def _add(self, *, completed: bool, url: bool, file: bool) -> None:
        now, none = timedelta(0), b""
        status = "completed" if completed else "processing"
        number = len(self.model.jobs)
        name = f"{number}.png"
        if file:
            render = self.world.people.render(name=name, link=Link.PUBLIC, age=now, status=status)
        else:
            link = self.world.people.link("images", name, Link.PUBLIC) if url else None
            job = self.world.people.add_job(output_url=link, age=now, status=status)
            render = Render(job, UUID(int=2), "images", name, none)
        self.model.order += 1
        created = self.model.moment()
        touched = self.model.now if file else None
        since = created if completed else None
        self.model.jobs[render.job_id] = Job(render, created, completed, url, touched, since)

    def _pick(self, which: int, wanted: Callable[[Job], bool]) -> Job | None:
        """Return one of the jobs that there are; None when there is none like that."""
        found = [job for job in self.model.jobs.values() if wanted(job)]
        return found[which % len(found)] if found else None

    @rule(which=_WHICH)
    def complete(self, which: int) -> None:
        """Complete a job late: its file is new, its row is not."""
        if job := self._pick(which, lambda job: job.row and not job.completed):
            self.world.people.upload("images", job.render.name, b"late")
            link = self.world.people.link("images", job.render.name, Link.PUBLIC)
            with self.world.database.connect() as owner:
                owner.execute(
                    "update render_jobs set status = 'completed', output_url = %s where id = %s",
                    (link, job.render.job_id),
                )
            self.model.order += 1
            job.completed, job.url, job.touched, job.since = True, True, self.model.now, self.model.moment()

    @rule(which=_WHICH)
    def upload_again(self, which: int) -> None:
        """Replace a file, so that it is young again."""
        if job := self._pick(which, lambda job: job.row and job.touched is not None):
            self.world.people.upload("images", job.render.name, b"again")
            job.touched = self.model.now

    @rule(which=_WHICH)
    def delete_file(self, which: int) -> None:
        """Delete a file past the system."""
        if job := self._pick(which, lambda job: job.touched is not None):
            with self.world.database.connect("supabase_admin") as superuser:
                superuser.execute("set storage.allow_delete_query = 'true'")
                superuser.execute("delete from storage.objects where name = %s", (job.render.name,))
            job.touched = None

    @rule(which=_WHICH)
    def delete_job(self, which: int) -> None:
        """Delete a job past the system: its file stays, and nobody knows it any more."""
        if job := self._pick(which, lambda job: job.row and not job.saves and not job.going):
            with self.world.database.connect() as owner:
                owner.execute("delete from render_jobs where id = %s", (job.render.job_id,))
            job.row, job.since = False, None

    @rule(which=_WHICH, number=st.integers(1, 3))
    def save(self, which: int, number: int) -> None:
        """Save outputs, some of them perhaps again."""
        for another in range(number):
            if job := self._pick(which + another, lambda job: job.row and not job.going):
                self.assets.append((self.world.people.save(job.render), job))
                job.saves += 1
                self.world.figures["saves"] += 1

    @rule(which=_WHICH)
    def save_too_late(self, which: int) -> None:
        """Try to save what the system has claimed, or what has gone."""
        if job := self._pick(which, lambda job: job.going):
            with contextlib.suppress(psycopg.errors.ForeignKeyViolation):
                self.world.people.save(job.render)
                raise AssertionError(f"a save of {job} should have been refused")
            self.world.figures["refused"] += 1

    @rule(which=_WHICH)
    def unsave(self, which: int) -> None:
        """Delete an asset: its job is worth a look again."""
        if self.assets:
            asset, job = self.assets.pop(which % len(self.assets))
            self.world.people.unsave(asset)
            job.saves -= 1
            if job.since is None and job.completed and job.row:
                job.since = job.created

    @rule(which=_WHICH)
    def soft_delete(self, which: int) -> None:
        """Mark an asset as deleted: it counts as saved all the same."""
        if self.assets:
            self.world.people.soft_delete(self.assets[which % len(self.assets)][0])

    @rule(minutes=st.sampled_from([1, 9, 10, 30, 59, 60, 61, 120]))
    def step(self, minutes: int) -> None:
        """Let time pass."""
        self.world.step(minutes)
        self.model.now += minutes

    @rule(
        change=st.one_of(
            st.fixed_dictionaries({"enabled": st.just(False)}),
            st.fixed_dictionaries({"dry_run": st.just(True)}),
            st.fixed_dictionaries({"files": st.booleans(), "rows": st.booleans()}),
            st.fixed_dictionaries({"max_age": st.sampled_from([10, 60, 90])}),
            st.fixed_dictionaries({"limit": st.sampled_from([1, 2, 10_000])}),
        )
    )
    def set_parameters(self, change: dict[str, Any]) -> None:
        """Change some parameters from their defaults."""
        self.parameters = replace(Parameters(), **change)

    @rule()
    def reset_parameters(self) -> None:
        """Put all parameters back to their defaults."""
        self.parameters = Parameters()

    @rule()
    def let_an_hour_pass(self) -> None:
        """Let an interval pass, and run the cycle that is due."""
        self.step(61)
        self.cycle()

    @rule()
    def cycle(self) -> None:
        """Run a cycle, and hold the project and the answer against the model."""
        project: Project = _Project(self.world)
        result = cycle(project, **self.parameters.as_overrides())  # type: ignore[arg-type]  # parameters by name
        expected = self.model.cycle(self.parameters)
        self.world.figures["cycles"] += 1
        self.world.figures["deleted"] += expected[0]
        if self.parameters.enabled:
            assert result.status in (Status.SUCCEEDED, Status.PARTIAL), result
        files, rows = (result.phases.get(phase, PhaseResult()) for phase in (Phase.STORAGE_FILES, Phase.RENDER_JOBS))
        missing = 0 if result.dry_run else files.already_missing
        assert (files.deleted, missing, rows.deleted) == expected, (result, expected)
        if not result.dry_run:
            assert (files.planned, rows.planned) == (files.deleted + missing, rows.deleted), result
        self.agree()

    def agree(self) -> None:
        """Compare rows, files and assets."""
        known = self.model.jobs.values()
        assert self.world.people.jobs() - self._anchor() == {job.render.job_id for job in known if job.row}
        assert {name for _, name in self.world.people.files()} == {
            job.render.name for job in known if job.touched is not None
        }
        assert self.world.people.saved_assets() - 1 == sum(job.saves for job in known)

    def _anchor(self) -> set[UUID]:
        return self.world.people.jobs() - self.model.jobs.keys()

    def teardown(self) -> None:
        """With all parameters back and enough time, all orphans go, and nothing else."""
        if self.model.jobs:
            self.reset_parameters()
            self.step(180)
            self.cycle()
            self.agree()


@dataclass(frozen=True)
class _Project:
    """The world, as a cycle wants to know it."""

    world: World

    @property
    def database(self) -> Database:
        return self.world.database

    @property
    def storage(self) -> Any:
        return self.world.ground.storage

    @property
    def keys(self) -> Any:
        return self.world.ground.keys


@contextmanager
def _world() -> Iterator[World]:
    with quiet(), Ground.prepared("model") as ground:
        database = ground.create("model")
        people = Application(database, ground.storage.url, ground.keys.service_role)
        figures = dict.fromkeys(("examples", "cycles", "deleted", "saves", "refused", "disagreements"), 0)
        try:
            yield World(ground, database, people, figures)
        finally:
            people.close()


@dataclass(frozen=True)
class ModelCampaign:
    """The campaign."""

    name: str = "model"

    def run(self, seed: int, short: bool) -> Figures:
        """Play many examples; a disagreement is printed as a play, in the long form as the shortest there is."""
        with _world() as world:
            play = with_seed(seed)(type("Play", (Play,), {"world": world}))
            limits = settings(
                max_examples=25 if short else 300,
                stateful_step_count=50 if short else 70,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Stage.generate] if short else [Stage.generate, Stage.shrink],
            )
            try:
                run_state_machine_as_test(play, settings=limits)
            except Exception:  # noqa: BLE001 (that is what the campaign looks for)
                traceback.print_exc()
                world.figures["disagreements"] += 1
            return dict(world.figures)

    def goals(self, figures: Figures) -> list[str]:
        """The system agrees with the model, and had the opportunity not to."""
        plays = figures["examples"]
        assert isinstance(plays, int)
        often = {"cycles": f">= {plays}", "deleted": f">= {plays}", "saves": f">= {plays // 2}", "refused": "> 0"}
        return missed(figures, {"disagreements": "== 0", **often})


CAMPAIGN = ModelCampaign()
