"""Renders, saves, deletions, the clock, parameters and cycles, against a model of a few lines.

Hypothesis chooses what happens, in which order. The model says after each cycle which rows, files and assets there
must be; the project must have exactly these, and the cycle must answer that it did exactly this.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from local.application import Application, Link, Render
from local.postgres import Database
from storage_cleanup.result import Phase, PhaseResult, Status
from tests.campaigns.ground import Ground, prepared_ground, quiet
from tests.campaigns.report import Figures, missed
from tests.integration.direct import Project, cycle

_QUIET_MINUTES = 60  # how long a candidate rests that was kept for now


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """A render, as the model knows it; all times are minutes of the model's clock.

    Attributes
    ----------
    url
        Whether its row has one.
    touched
        When its file was uploaded; None when there is no file.
    since
        From when its age counts for the system; None when it is no candidate.
    going
        The system has claimed it: it can't be saved any more.
    """

    render: Render
    created: int
    completed: bool
    url: bool
    touched: int | None
    since: int | None
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
    jobs: dict[UUID, Job] = field(default_factory=dict)

    def cycle(self, parameters: Parameters) -> tuple[int, int]:
        """Play a cycle; return how many files and how many rows it deletes."""
        if not parameters.enabled or parameters.dry_run:
            return 0, 0
        files = self._remove_files(parameters) if parameters.files else 0
        rows = self._delete_rows(parameters, parameters.limit - files) if parameters.rows else 0
        return files, rows

    def _remove_files(self, parameters: Parameters) -> int:
        removed = 0
        for job in self._due(parameters, url=True):
            if removed == parameters.limit:
                break
            if job.saves:
                job.since = None
            elif job.touched is not None and self.now - job.touched < parameters.max_age:
                job.since = self.now + _QUIET_MINUTES - parameters.max_age
            else:
                removed += job.touched is not None
                job.going, job.touched, job.since = True, None, None
        return removed

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
            if job.since is not None and job.url == url and self.now - job.since >= parameters.max_age
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
    "storage_cleanup.candidate": ["since"],
    "storage_cleanup.deletion": ["claimed_at", "attempted_at", "updated_at"],
    "storage_cleanup.run": ["started_at", "heartbeat_at", "finished_at"],
}


class Play(RuleBasedStateMachine):
    """What people and operators do, in the model and in the project at once."""

    world: World
    jobs = Bundle("jobs")
    assets = Bundle("assets")

    def __init__(self) -> None:
        super().__init__()
        self.model, self.parameters = Model(), Parameters()

    @initialize()
    def begin(self) -> None:
        """Find the project empty."""
        self.world.clear()
        self.world.figures["examples"] += 1

    @rule(target=jobs, with_file=st.booleans())
    def render(self, with_file: bool) -> UUID:
        """Render an output; sometimes its file never arrives."""
        return self._add(completed=True, url=True, file=with_file)

    @rule(target=jobs)
    def render_without_url(self) -> UUID:
        """Complete a job that has no output."""
        return self._add(completed=True, url=False, file=False)

    @rule(target=jobs)
    def begin_to_render(self) -> UUID:
        """Add a job that is under way."""
        return self._add(completed=False, url=False, file=False)

    def _add(self, *, completed: bool, url: bool, file: bool) -> UUID:
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
        touched = self.model.now if file else None
        since = self.model.now if completed else None
        self.model.jobs[render.job_id] = Job(render, self.model.now, completed, url, touched, since)
        return render.job_id

    @rule(job=jobs)
    def complete(self, job: UUID) -> None:
        """Complete a job late: its file is new, its row is not."""
        known = self.model.jobs[job]
        if known.completed or not known.row:
            return
        self.world.people.upload("images", known.render.name, b"late")
        link = self.world.people.link("images", known.render.name, Link.PUBLIC)
        with self.world.database.connect() as owner:
            owner.execute("update render_jobs set status = 'completed', output_url = %s where id = %s", (link, job))
        known.completed, known.url, known.touched, known.since = True, True, self.model.now, known.created

    @rule(job=jobs)
    def upload_again(self, job: UUID) -> None:
        """Replace a file, so that it is young again."""
        known = self.model.jobs[job]
        if known.touched is not None and known.row:
            self.world.people.upload("images", known.render.name, b"again")
            known.touched = self.model.now

    @rule(job=jobs)
    def delete_file(self, job: UUID) -> None:
        """Delete a file past the system."""
        known = self.model.jobs[job]
        if known.touched is not None:
            with self.world.database.connect("supabase_admin") as superuser:
                superuser.execute("set storage.allow_delete_query = 'true'")
                superuser.execute("delete from storage.objects where name = %s", (known.render.name,))
            known.touched = None

    @rule(job=jobs)
    def delete_job(self, job: UUID) -> None:
        """Delete a job past the system: its file stays, and nobody knows it any more."""
        known = self.model.jobs[job]
        if known.row and not known.saves and not known.going:
            with self.world.database.connect() as owner:
                owner.execute("delete from render_jobs where id = %s", (job,))
            known.row, known.since = False, None

    @rule(target=assets, job=jobs)
    def save(self, job: UUID) -> Any:
        """Save an output; it comes too late exactly when the system has claimed it."""
        known = self.model.jobs[job]
        if not known.row and not known.going:
            return multiple()
        try:
            asset = self.world.people.save(known.render)
        except psycopg.errors.ForeignKeyViolation:
            assert known.going
            self.world.figures["refused"] += 1
            return multiple()
        assert not known.going
        known.saves += 1
        self.world.figures["saves"] += 1
        return (asset, job)

    @rule(asset=consumes(assets))
    def unsave(self, asset: tuple[UUID, UUID]) -> None:
        """Delete an asset: its job is worth a look again."""
        self.world.people.unsave(asset[0])
        known = self.model.jobs[asset[1]]
        known.saves -= 1
        if known.since is None and known.completed and known.row:
            known.since = known.created

    @rule(asset=assets)
    def soft_delete(self, asset: tuple[UUID, UUID]) -> None:
        """Mark an asset as deleted: it counts as saved all the same."""
        self.world.people.soft_delete(asset[0])

    @rule(minutes=st.sampled_from([1, 9, 10, 30, 59, 60, 61, 120]))
    def step(self, minutes: int) -> None:
        """Let time pass."""
        self.world.step(minutes)
        self.model.now += minutes

    @rule(
        change=st.one_of(
            st.fixed_dictionaries({"enabled": st.booleans()}),
            st.fixed_dictionaries({"dry_run": st.booleans()}),
            st.fixed_dictionaries({"files": st.booleans(), "rows": st.booleans()}),
            st.fixed_dictionaries({"max_age": st.sampled_from([10, 60, 90])}),
            st.fixed_dictionaries({"limit": st.sampled_from([1, 2, 10_000])}),
        )
    )
    def set_parameters(self, change: dict[str, Any]) -> None:
        """Change parameters."""
        for name, value in change.items():
            setattr(self.parameters, name, value)

    @rule()
    def reset_parameters(self) -> None:
        """Put all parameters back to their defaults."""
        self.parameters = Parameters()

    @rule()
    def cycle(self) -> None:
        """Run a cycle, and hold the project and the answer against the model."""
        project: Project = _Project(self.world)
        result = cycle(project, **self.parameters.as_overrides())  # type: ignore[arg-type]  # parameters by name
        files, rows = self.model.cycle(self.parameters)
        self.world.figures["cycles"] += 1
        self.world.figures["deleted"] += files
        if self.parameters.enabled:
            assert result.status in (Status.SUCCEEDED, Status.PARTIAL), result
        deleted = [
            result.phases.get(phase, PhaseResult()).deleted for phase in (Phase.STORAGE_FILES, Phase.RENDER_JOBS)
        ]
        assert deleted == [files, rows], (deleted, [files, rows])
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
    with quiet(), prepared_ground("model") as ground:
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
        """Play many examples; a disagreement is shrunk to the shortest play, and printed."""
        with _world() as world:
            play = with_seed(seed)(type("Play", (Play,), {"world": world}))
            limits = settings(
                max_examples=10 if short else 300,
                stateful_step_count=30 if short else 60,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            try:
                run_state_machine_as_test(play, settings=limits)
            except Exception:  # noqa: BLE001 (that is what the campaign looks for)
                traceback.print_exc()
                world.figures["disagreements"] += 1
            return dict(world.figures)

    def goals(self, figures: Figures) -> list[str]:
        """The system agrees with the model, and had the opportunity not to."""
        return missed(figures, {"disagreements": "== 0", "cycles": ">= 10", "deleted": "> 0", "saves": "> 0"})


CAMPAIGN = ModelCampaign()
