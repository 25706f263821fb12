"""Saves against continuous cycles: whatever was saved and committed is there at the end, row and file.

Savers render outputs that are old enough to go, and save most of them in every way that an application might, while
sweepers run one cycle after the other over the same tables. A save either is refused or lasts; nothing in between.

The campaign is its own control: it must find losses where saves don't look for claims, where they take no locks, and
where claims look who needs a file before they lock instead of after it.
"""

import json
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import IsolationLevel
from psycopg import errors as pg
from psycopg.types.json import Jsonb

from local.application import TWO_HOURS, age_jobs
from local.postgres import ROOT, Database
from storage_cleanup.model.vocabulary import Phase, Status
from storage_cleanup.storage.paths import OWN_BUCKET
from tests.campaigns.ground import Ground, Project, quiet
from tests.campaigns.report import Figures, missed

INSTALL = (ROOT / "database" / "install.sql").read_text()
GUARD = "storage_cleanup_guard"


# -- savers ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A completed render of two hours ago; ``file`` is ``bucket/name``, or None if it never had one."""

    id: UUID
    file: str | None


class Saver:
    """A user who renders and saves, and the backend that does it for them; both on connections of their own.

    What a save promises is written into the asset itself, job and file, backwards: so the account at the end needs
    nothing of the product to know what must be there, and the product can't read it.

    Attributes
    ----------
    account
        How often each thing happened. ``saves`` are committed; ``refused`` came too late, as the guard said or because
        the row had gone; ``serialization`` are those that the database asked to be tried again.
    """

    def __init__(self, project: Project, seed: str) -> None:
        self._random = random.Random(seed)
        self._origin = project.origin
        self._me = UUID(int=self._random.getrandbits(128), version=4)
        self.account: Counter[str] = Counter()
        self._backend = psycopg.connect(project.database_url, autocommit=True)
        self._user = psycopg.connect(project.user_url, autocommit=True)
        claims = json.dumps({"sub": str(self._me), "role": "authenticated"})
        self._user.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
        # Each way with its weight and the most jobs that it takes.
        self._ways: Sequence[tuple[int, int, Callable[[list[Job]], None]]] = (
            (12, 1, self.by_insert),
            (4, 1, self.in_an_odd_spelling),
            (8, 1, self.by_update),
            (14, 40, self.by_bulk_insert),
            (6, 3, self.in_a_long_transaction),
            (5, 2, self.on_a_snapshot),
            (4, 1, self.through_a_new_job_of_the_same_file),
            (3, 1, self.again_after_an_unsave),
            (3, 2, self.by_moving_an_asset_to_another_job),
            (2, 2, self.and_think_better_of_it),
            (5, 4, self.not_at_all),
        )

    def work(self, saves: int) -> Counter[str]:
        """Render and save until that many saves are committed."""
        with self._backend, self._user:
            while self.account["saves"] < saves:
                jobs = self.render(self._random.randint(20, 80))
                self._nap(0.1)
                while jobs:
                    weights = [weight for weight, _, _ in self._ways]
                    _, most, save = self._random.choices(self._ways, weights)[0]
                    taken, jobs = jobs[:most], jobs[most:]
                    save(taken)
        return self.account

    def render(self, count: int) -> list[Job]:
        """Add old jobs: some never had a file, some have one in common, some were claimed and released before."""
        jobs = []
        for _ in range(count):
            job = Job(self._new_id(), None)
            if self._random.random() > 0.05:
                bucket = self._random.choice(("images", "videos"))
                job = Job(job.id, f"{bucket}/{self._me}/scene_{job.id}.png")
            jobs.append(job)
            if job.file and self._random.random() < 0.05:
                jobs.append(Job(self._new_id(), job.file))
        released = [job.id for job in jobs if self._random.random() < 0.05]
        with self._backend.transaction():
            self._backend.execute(
                "insert into storage.objects (bucket_id, name, metadata, created_at, updated_at) "
                "select split_part(file, '/', 1), substr(file, position('/' in file) + 1), '{\"size\": 10}', "
                "       now() - interval '2 hours', now() - interval '2 hours' from unnest(%s::text[]) as file",
                (list({job.file for job in jobs if job.file}),),
            )
            self._add_jobs(jobs)
            self._backend.execute(
                "insert into storage_cleanup.deletion (job_id, run_id, state) "
                "select id, gen_random_uuid(), 'released' from unnest(%s::uuid[]) as id",
                (released,),
            )
        self.account["jobs"] += len(jobs)
        self.account["files"] += len({job.file for job in jobs if job.file})
        self._random.shuffle(jobs)
        return jobs

    # -- the ways to save ------------------------------------------------------------------------------------------

    def by_insert(self, jobs: list[Job]) -> None:
        """Save one output in one statement, as its user."""
        self._nap()
        with self._saving():
            self._insert(jobs[0])

    def in_an_odd_spelling(self, jobs: list[Job]) -> None:
        """Spell the job's id in capitals, in braces, without hyphens, in an array, or deeper."""
        plain = str(jobs[0].id)
        spelling: Any = self._random.choice(
            (plain.upper(), f"{{{plain}}}", plain.replace("-", ""), [plain], {"nested": [plain.upper()]})
        )
        self._nap()
        with self._saving():
            self._insert(jobs[0], spelling)

    def by_update(self, jobs: list[Job]) -> None:
        """Make an asset first, and name its job later, by an UPDATE of ``metadata``."""
        draft = self._draft()
        self._nap()
        with self._saving():
            self._name_job(draft, jobs[0])

    def by_bulk_insert(self, jobs: list[Job]) -> None:
        """Save many in one INSERT … SELECT by the backend; all of them or none."""
        self._nap()
        with self._saving() as attempt:
            saved = self._backend.execute(
                "insert into user_assets (user_id, asset_type, metadata) "
                "select user_id, 'generated_saved', jsonb_build_object('render_job_id', id, "
                "       'promise', reverse(id || ' ' || coalesce(prompt ->> 'file', ''))) "
                "from render_jobs where id = any(%s)",
                ([job.id for job in jobs],),
            )
            attempt.saves = saved.rowcount
            self.account["refused"] += len(jobs) - saved.rowcount  # their rows had gone already
        if attempt.refused and len(jobs) > 1:
            self.by_bulk_insert(jobs[: len(jobs) // 2])
            self.by_bulk_insert(jobs[len(jobs) // 2 :])

    def in_a_long_transaction(self, jobs: list[Job]) -> None:
        """Save several between other statements and pauses; the first also changes its job's row."""
        with self._saving(len(jobs)), self._user.transaction():
            for number, job in enumerate(jobs):
                if number == 0:
                    self._user.execute("update render_jobs set progress = 100 where id = %s", (job.id,))
                self._insert(job)
                self._nap()
                self._user.execute("select status from render_jobs where id = %s", (job.id,))

    def on_a_snapshot(self, jobs: list[Job]) -> None:
        """Save at REPEATABLE READ or SERIALIZABLE, on a snapshot that is older than the save."""
        self._user.isolation_level = self._random.choice((IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE))
        try:
            with self._saving(len(jobs)), self._user.transaction():
                self._user.execute("select 1")
                for job in jobs:
                    self._nap()
                    self._insert(job)
                self._nap()
        finally:
            self._user.isolation_level = None

    def through_a_new_job_of_the_same_file(self, jobs: list[Job]) -> None:
        """Give a second job the URL of a first one, unsaved itself, and save it in the same transaction.

        The application has read that URL some time ago, so its file may be about to go, or gone.
        """
        twin = Job(self._new_id(), jobs[0].file)
        self._backend.isolation_level = self._random.choice(
            (IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ)
        )
        self._nap()
        try:
            with self._saving() as attempt, self._backend.transaction():
                self._backend.execute("select 1")
                self._nap()
                self._add_jobs([twin])
                self._nap()
                self._insert(twin, connection=self._backend)
                self._nap()
        finally:
            self._backend.isolation_level = None
        self.account["jobs"] += attempt.saves

    def again_after_an_unsave(self, jobs: list[Job]) -> None:
        """Save, delete the asset, save again: while a cycle takes the job for the orphan that it is meanwhile."""
        with self._saving() as first:
            asset = self._insert(jobs[0])
        if not first.refused:
            self._nap()
            self._user.execute("delete from user_assets where id = %s", (asset,))
            self.account["unsaved"] += 1
            self._nap()
            with self._saving():
                self._insert(jobs[0])

    def by_moving_an_asset_to_another_job(self, jobs: list[Job]) -> None:
        """Let an asset that names one job name another: one save is taken back, one is made."""
        draft = self._draft()
        for number, job in enumerate(jobs):
            with self._saving() as attempt:
                self._name_job(draft, job)
            if attempt.refused:
                return
            self.account["unsaved"] += number
            self._nap()

    def and_think_better_of_it(self, jobs: list[Job]) -> None:
        """Save and roll back: nothing was saved, and nothing is kept."""
        with self._saving(0), self._user.transaction():
            for job in jobs:
                self._insert(job)
                self._nap()
            raise psycopg.Rollback

    def not_at_all(self, jobs: list[Job]) -> None:
        """Leave them: most outputs are never saved."""

    # -- the statements --------------------------------------------------------------------------------------------

    @contextmanager
    def _saving(self, saves: int = 1) -> Iterator["_Attempt"]:
        """Count what is tried inside as committed, or as refused if the database says so. Other errors go on."""
        attempt = _Attempt(saves)
        try:
            yield attempt
        except pg.ForeignKeyViolation as error:
            if error.diag.constraint_name != GUARD:
                raise
            attempt.refused, attempt.saves = True, 0
            self.account["refused"] += 1
        except (pg.SerializationFailure, pg.DeadlockDetected):
            attempt.refused, attempt.saves = True, 0
            self.account["serialization"] += 1
        self.account["saves"] += attempt.saves

    def _insert(
        self,
        job: Job,
        spelling: Any = None,
        *,
        connection: psycopg.Connection[Any] | None = None,
    ) -> UUID:
        (asset,) = (connection or self._user).execute(
            "insert into user_assets (user_id, asset_type, metadata) values (%s, 'generated_saved', %s) returning id",
            (self._me, _metadata(job, spelling)),
        ).fetchone() or (None,)
        return UUID(str(asset))

    def _draft(self) -> UUID:
        (draft,) = self._user.execute(
            "insert into user_assets (user_id, asset_type) values (%s, 'draft') returning id", (self._me,)
        ).fetchone() or (None,)
        return UUID(str(draft))

    def _name_job(self, asset: UUID, job: Job) -> None:
        self._user.execute("update user_assets set metadata = %s where id = %s", (_metadata(job), asset))

    def _add_jobs(self, jobs: list[Job]) -> None:
        self._backend.execute(
            "insert into render_jobs (id, user_id, status, prompt, output_url) "
            "select id, %s, 'completed', jsonb_build_object('file', file), %s || file "
            "from unnest(%s::uuid[], %s::text[]) as job (id, file)",
            (
                self._me,
                f"{self._origin}/storage/v1/object/public/",
                [job.id for job in jobs],
                [job.file for job in jobs],
            ),
        )
        age_jobs(self._backend, [job.id for job in jobs], TWO_HOURS)

    def _nap(self, longest: float = 0.02) -> None:
        """Do nothing for a while, every other time."""
        if self._random.random() < 0.5:
            time.sleep(self._random.uniform(0, longest))

    def _new_id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)


@dataclass
class _Attempt:
    """Saves that were tried together: how many were committed, and whether they were refused."""

    saves: int
    refused: bool = False


def _metadata(job: Job, spelling: Any = None) -> Jsonb:
    promise = f"{job.id} {job.file or ''}"
    return Jsonb({"render_job_id": spelling or str(job.id), "promise": promise[::-1]})


# -- sweepers ----------------------------------------------------------------------------------------------------------


def save(project: Project, seed: str, saves: int, start: Path) -> Counter[str]:
    """Be one saver, as soon as the file ``start`` exists; runs in a process of its own."""
    saver = Saver(project, seed)
    while not start.exists():
        time.sleep(0.01)
    return saver.work(saves)


def sweep(project: Project, start: Path, stop: Path) -> Counter[str]:
    """Be one sweeper, until the file ``stop`` exists; the first to be at work makes the file ``start``."""
    logging.disable()
    account: Counter[str] = Counter()
    try:
        with project.store() as store:
            while not stop.exists():
                _run_cycle(project, store, account)
                start.touch()
                time.sleep(random.uniform(0, 0.2))
    finally:
        start.touch()
    return account


def _run_cycle(project: Project, store: Any, account: Counter[str]) -> int:
    """Run a cycle, add what it did to the account, and return how much that was."""
    result = project.cycle(store)
    files, rows = result.phases[Phase.STORAGE_FILES], result.phases[Phase.RENDER_JOBS]
    account["cycles"] += 1
    account["cycles_failed"] += result.status is Status.FAILED
    account["files_deleted"] += files.deleted
    account["rows_deleted"] += rows.deleted
    return files.planned + rows.planned


# -- the account -------------------------------------------------------------------------------------------------------

# Every committed save is an asset that names its job and file.
_LOST = """
    select count(*) filter (where job.id is null) as lost_rows,
           count(*) filter (where asset.file is not null and stored.id is null) as lost_files,
           count(*) filter (where job.id is null or asset.file is not null and stored.id is null) as lost_saved,
           count(*) as saved_at_the_end
    from (select split_part(reverse(metadata ->> 'promise'), ' ', 1)::uuid as job_id,
                 nullif(substr(reverse(metadata ->> 'promise'), 38), '') as file
          from public.user_assets where metadata ? 'promise') as asset
    left join public.render_jobs as job on job.id = asset.job_id
    left join storage.objects as stored on stored.bucket_id || '/' || stored.name = asset.file
"""

# What nobody saved and nothing saved shares must have gone; what has gone must be in the ledger.
_LEFT = """
    with saved as (select distinct split_part(reverse(metadata ->> 'promise'), ' ', 1)::uuid as id,
                                   nullif(substr(reverse(metadata ->> 'promise'), 38), '') as file
                   from public.user_assets where metadata ? 'promise')
    select (select count(*) from public.render_jobs as job
            where not exists (select from saved where saved.id = job.id)
              and not exists (select from saved where saved.file = job.prompt ->> 'file')) as leaked,
           (select count(*) from storage_cleanup.deletion where state in ('claimed', 'file_deleted')) as claims_left,
           (select count(*) from storage_cleanup.deletion where state = 'done') as done,
           (select count(*) from storage_cleanup.deletion as ledger where state = 'done'
            and exists (select from public.render_jobs where id = ledger.job_id)) as done_but_there,
           (select count(*) from public.render_jobs) as jobs_left,
           (select count(*) from storage.objects) as files_left
"""


@dataclass
class Race:
    """One race on one database, and its account."""

    ground: Ground
    database: Database
    seed: int
    saves: int
    savers: int = 6
    sweepers: int = 3
    account: Counter[str] = field(default_factory=Counter)

    def run(self) -> Counter[str]:
        """Let savers and sweepers race, finish the sweeping, and take stock."""
        self._save_something()
        project = self.ground.project(self.database)
        context = get_context("forkserver")
        context.set_forkserver_preload(["tests.campaigns.race"])
        with (
            tempfile.TemporaryDirectory() as directory,
            ProcessPoolExecutor(self.savers + self.sweepers, mp_context=context) as processes,
        ):
            start, stop = Path(directory) / "start", Path(directory) / "stop"
            sweepers = [processes.submit(sweep, project, start, stop) for _ in range(self.sweepers)]
            share = -(-self.saves // self.savers)
            savers = [processes.submit(save, project, f"{self.seed}/{n}", share, start) for n in range(self.savers)]
            try:
                wait([*savers], return_when=FIRST_EXCEPTION)
            finally:
                stop.touch()
            self._add([*savers, *sweepers])
        self._drain(project)
        self._take_stock()
        return self.account

    def _save_something(self) -> None:
        """Have a save that stays: cycles refuse to believe that there was none, or that all are gone."""
        with self.database.connect() as connection:
            connection.execute(
                "insert into user_assets (user_id, asset_type, metadata) "
                "values (gen_random_uuid(), 'generated_saved', jsonb_build_object('render_job_id', gen_random_uuid()))"
            )

    def _add(self, processes: list[Future[Counter[str]]]) -> None:
        for process in processes:
            self.account.update(process.result())

    def _drain(self, project: Project) -> None:
        """Sweep on until there is nothing to do, after the hour for which what was kept isn't looked at again."""
        with self.database.connect() as connection:
            connection.execute("update storage_cleanup.candidate set since = since - interval '1 hour'")
        with project.store() as store:
            while _run_cycle(project, store, self.account):
                pass

    def _take_stock(self) -> None:
        removals = self.ground.storage.stats()["removals"].items()
        times_removed = [times for name, times in removals if not name.startswith(f"{OWN_BUCKET}/")]
        self.account["files_removed"] = len(times_removed)
        self.account["removed_twice"] = sum(times_removed) - len(times_removed)
        with self.database.connect("supabase_admin") as connection:
            for query in (_LOST, _LEFT):
                cursor = connection.execute(query)
                names = [column.name for column in cursor.description or ()]
                self.account.update(dict(zip(names, cursor.fetchone() or (), strict=True)))
        account = self.account
        account["unaccounted"] = (
            abs(account["jobs"] - account["jobs_left"] - account["done"])
            + abs(account["files"] - account["files_left"] - account["files_removed"])
            + abs(account["saves"] - account["unsaved"] - account["saved_at_the_end"])
            + account["done_but_there"]
        )


# -- the campaign ------------------------------------------------------------------------------------------------------


def without_refusal(install: str) -> str:
    """Return install.sql with saves that never look for a claim."""
    return _replaced(
        install, "    if taken is not null then\n        raise exception", "    if false then\n        raise exception"
    )


def without_holds(install: str) -> str:
    """Return install.sql with saves that take no locks: they look for a claim, and that is all."""
    return _replaced(install, "(storage_cleanup.slots(jobs, objects)) order by slot for key share", "('{}'::integer[])")


def without_second_look(install: str) -> str:
    """Return install.sql with claims that look who needs a file before they lock: half of the mechanism."""
    look = "    -- … and only then, in statements of their own, a look at who needs them.\n    return query\n"
    decide = (
        "        select * from storage_cleanup.decide(jobs, keys, foreign_urls, max_age, grace, owners_only, "
        "keep_dependents, plan, free, free_keys)\n"
    )
    first = "    if not dry_run then\n        -- First the objects' locks …\n"
    install = _replaced(install, look, "    return query\n")
    install = _replaced(
        install, decide, "        select * from early where early.job_id = any (free) or outcome <> 'claimed'\n"
    )
    return _replaced(
        install,
        first,
        "    drop table if exists early;\n"
        "    create temporary table early as\n"
        "    select * from storage_cleanup.decide(jobs, keys, foreign_urls, max_age, grace, "
        "owners_only, keep_dependents, plan, null, null);\n    perform pg_sleep(0.02);     -- as on a busy server\n"
        + first,
    )


CONTROLS = (without_refusal, without_holds, without_second_look)


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"install.sql has changed, and the control with it: {old!r}"
    return text.replace(old, new)


class RaceCampaign:
    """The race, and its two controls."""

    name = "race"

    def run(self, seed: int, short: bool) -> Figures:
        saves, control_saves = (3_000, 1_500) if short else (100_000, 15_000)
        with Ground.prepared("race") as ground, quiet():
            account = Race(ground, ground.create("race"), seed, saves).run()
            lost = {
                f"control_{control.__name__}_lost": Race(
                    ground, _altered(ground, control.__name__, control), seed, control_saves
                ).run()["lost_saved"]
                for control in CONTROLS
            }
        return {
            **{name: account[name] for name in _FIGURES},
            **lost,
            "short_form": int(short),
        }

    def goals(self, figures: Figures) -> list[str]:
        return missed(figures, {**_GOALS, "saves": ">= 3000" if figures["short_form"] else ">= 100000"})


_FIGURES = (
    *("saves", "lost_saved", "lost_rows", "lost_files", "refused", "serialization", "unsaved"),
    *("cycles", "cycles_failed", "files_removed", "removed_twice", "rows_deleted"),
    *("leaked", "claims_left", "unaccounted"),
)
_GOALS = {
    "lost_saved": "== 0",
    "refused": "> 0",
    "files_removed": "> 0",
    "rows_deleted": "> 0",
    "removed_twice": "== 0",
    "cycles_failed": "== 0",
    "leaked": "== 0",
    "claims_left": "== 0",
    "unaccounted": "== 0",
    **{f"control_{control.__name__}_lost": "> 0" for control in CONTROLS},
}


def _altered(ground: Ground, name: str, alter: Callable[[str], str]) -> Database:
    database = ground.create(name)
    with database.connect() as connection:
        connection.execute(alter(INSTALL).encode())
        connection.execute("update storage_cleanup.gate set opens_at = now()")  # nobody was at work before
    return database


CAMPAIGN = RaceCampaign()
