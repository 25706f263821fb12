"""Application transactions of every shape against cycles, comparisons and installations: no deadlock has a victim.

Each writer has rows of its own, as two requests of an application have, and shares only files with the others. So
whatever waits in a circle waits for something of ours. An application may hear the guard's refusals, and above read
committed that it couldn't be serialized; anything else is a finding. The control, in which saves take their locks for
writing and in no order, must find deadlocks.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import IsolationLevel
from psycopg import errors as pg
from psycopg.types.json import Jsonb

from database.install import RefusedError, install
from local.application import TWO_HOURS, Application
from storage_cleanup.errors import StorageCleanupError
from tests.campaigns.ground import Ground, Project, quiet
from tests.campaigns.report import Figures, missed

_HOT, _FILES = 20, 2000
_WRITERS = 6
_GUARD = "storage_cleanup_guard"
_LEVELS = (IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)
_INSTALLING = (": run database/install.sql", "an installation is at work", "the next cycle compares")
"""What a cycle says rightly while the index is being built anew."""
_WITHOUT_ORDER = """
create or replace function storage_cleanup.hold(jobs uuid[], objects bigint[]) returns void language plpgsql as $$
begin
    perform from (select slot from unnest(storage_cleanup.slots(jobs, objects)) as slot order by random()) as wanted
    cross join lateral (select from storage_cleanup.lock where lock.slot = wanted.slot for update) as held;
end $$
"""
Connection = psycopg.Connection[Any]
Step = Callable[["Writer", Connection], object]


@dataclass
class Writer:
    """One part of an application, with rows of its own and files that others use as well."""

    choose: random.Random
    user: UUID = field(default_factory=uuid4)
    jobs: list[UUID] = field(default_factory=list)
    assets: list[UUID] = field(default_factory=list)

    def url(self) -> str:
        """Return the URL of some file."""
        number = self.choose.randrange(self.choose.choice([_HOT, _FILES]))
        return f"/object/sign/images/shared/{number}.png?token=t"

    def metadata(self) -> Jsonb:
        """Return what an asset says: a job, some files, or both."""
        said: dict[str, object] = {"files": [self.url() for _ in range(self.choose.randrange(3))]}
        if self.jobs and self.choose.random() < 0.7:
            said["render_job_id"] = str(self.choose.choice(self.jobs))
        return Jsonb(said)

    def some(self, ids: list[UUID]) -> list[UUID]:
        """Return a few of these, in any order."""
        return self.choose.sample(ids, min(len(ids), self.choose.randrange(1, 5)))

    def work(self, url: str, stop: threading.Event) -> Counter[str]:
        """Carry out transactions until it is enough; return how they ended."""
        ends: Counter[str] = Counter()
        with psycopg.connect(url, autocommit=False) as connection:
            while not stop.is_set():
                connection.isolation_level = level = self.choose.choice(_LEVELS)
                jobs, assets = [*self.jobs], [*self.assets]
                try:
                    for step in self.choose.choices(STEPS, k=self.choose.randrange(1, 6)):
                        step(self, connection)
                    connection.commit()
                    ends["committed"] += 1
                except psycopg.Error as error:
                    connection.rollback()
                    self.jobs, self.assets = jobs, assets
                    ends[_end(error, level)] += 1
        return ends


def _end(error: psycopg.Error, level: IsolationLevel) -> str:
    if error.diag.constraint_name == _GUARD:
        return "refused"
    if isinstance(error, pg.DeadlockDetected):
        return "deadlocks"
    if isinstance(error, pg.SerializationFailure) and level is not IsolationLevel.READ_COMMITTED:
        return "not serialized"
    return f"error {error.sqlstate} {error.diag.message_primary}"


# -- what a transaction may do -----------------------------------------------------------------------------------------


def _insert_jobs(writer: Writer, connection: Connection) -> None:
    rows = [(uuid4(), writer.user, writer.url()) for _ in range(writer.choose.randrange(1, 5))]
    writer.jobs += [row[0] for row in rows]
    connection.execute(
        "insert into render_jobs (id, user_id, status, output_url, created_at) "
        "select id, user_id, 'completed', url, now() - interval '2 hours' "
        "from unnest(%s::uuid[], %s::uuid[], %s::text[]) as new (id, user_id, url)",
        tuple(map(list, zip(*rows, strict=True))),
    )


def _move_jobs(writer: Writer, connection: Connection) -> None:
    connection.execute(
        "update render_jobs set output_url = %s where id = any(%s)", (writer.url(), writer.some(writer.jobs))
    )


def _finish_jobs(writer: Writer, connection: Connection) -> None:
    status = writer.choose.choice(["running", "completed"])
    connection.execute("update render_jobs set status = %s where id = any(%s)", (status, writer.some(writer.jobs)))


def _delete_jobs(writer: Writer, connection: Connection) -> None:
    connection.execute("delete from render_jobs where id = any(%s)", (writer.some(writer.jobs),))


def _insert_assets(writer: Writer, connection: Connection) -> None:
    new = [uuid4() for _ in range(writer.choose.randrange(1, 4))]
    writer.assets += new
    connection.cursor().executemany(
        "insert into user_assets (id, user_id, asset_type, metadata) values (%s, %s, 'image', %s)",
        [(asset, writer.user, writer.metadata()) for asset in new],
    )


def _upsert_asset(writer: Writer, connection: Connection) -> None:
    asset = writer.choose.choice([*writer.assets, uuid4()])
    if asset not in writer.assets:
        writer.assets.append(asset)
    connection.execute(
        "insert into user_assets (id, user_id, asset_type, metadata) values (%s, %s, 'image', %s) "
        "on conflict (id) do update set metadata = excluded.metadata",
        (asset, writer.user, writer.metadata()),
    )


def _merge_assets(writer: Writer, connection: Connection) -> None:
    connection.execute(
        "merge into user_assets as asset using (select unnest(%s::uuid[]) as id) as given on given.id = asset.id "
        "when matched then update set metadata = %s "
        "when not matched then insert (id, user_id, asset_type) values (given.id, gen_random_uuid(), 'image')",
        (writer.some(writer.assets), writer.metadata()),
    )


def _copy_assets(writer: Writer, connection: Connection) -> None:
    with connection.cursor().copy("copy user_assets (id, user_id, asset_type, metadata) from stdin") as copy:
        for _ in range(writer.choose.randrange(1, 4)):
            writer.assets.append(uuid4())
            copy.write_row((writer.assets[-1], writer.user, "image", writer.metadata()))


def _delete_assets(writer: Writer, connection: Connection) -> None:
    connection.execute("delete from user_assets where id = any(%s)", (writer.some(writer.assets),))


def _think_better_of_it(writer: Writer, connection: Connection) -> None:
    with suppress(psycopg.Rollback), connection.transaction() as savepoint:
        _insert_jobs(writer, connection)
        _insert_assets(writer, connection)
        raise psycopg.Rollback(savepoint)


STEPS: tuple[Step, ...] = (
    *(_insert_jobs, _move_jobs, _finish_jobs, _delete_jobs, _insert_assets, _upsert_asset, _merge_assets),
    *(_copy_assets, _delete_assets, _think_better_of_it),
)


# -- what it meets -----------------------------------------------------------------------------------------------------


def _sweep(project: Project, stop: threading.Event) -> Counter[str]:
    """Run cycles one after the other, over jobs that are made old enough; none may fail."""
    ends: Counter[str] = Counter()
    old = (
        "update storage_cleanup.candidate "
        "set since = now() - interval '2 hours', completed_at = now() - interval '2 hours' "
        "where job_id in (select job_id from storage_cleanup.candidate for update skip locked)"
    )
    settings = project.settings(ownership="off")
    with project.store() as store, psycopg.connect(project.database_url, autocommit=True) as owner:
        while not stop.is_set():
            owner.execute(old)
            owner.execute("update storage_cleanup.deletion set quiet_at = now() where quiet_at > now()")
            result = project.cycle(store, settings=settings)
            rows = sum(phase.deleted + phase.already_missing for phase in result.phases.values())
            ends["cycles"] += 1
            ends["removed"] += rows
            if result.message and not any(words in result.message for words in _INSTALLING):
                ends[f"cycle: {result.message}"] += 1
    return ends


def _reinstall(url: str, stop: threading.Event) -> Counter[str]:
    """Compare everything, build the index anew and install, again and again."""
    ends: Counter[str] = Counter()
    while not stop.wait(0.3):
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("update storage_cleanup.comparison set fingerprint = null")
            owner.execute("drop index concurrently if exists storage_cleanup_render_job_id")
        try:
            install(url, say=lambda _: None)
            ends["installations"] += 1
        except (RefusedError, StorageCleanupError) as error:
            ends[f"installation: {error}"] += 1
    return ends


def _try_out(ground: Ground, name: str, seed: str, seconds: float, alteration: str | None = None) -> Counter[str]:
    """Let all of them work on a database for some time; return how everything ended."""
    database = ground.create(name)
    try:
        project = ground.project(database)
        with closing(Application(database, project.origin, project.key)) as people:
            for number in range(2 * _HOT):
                people.upload("images", f"shared/{number}.png", b"shared", age=TWO_HOURS)
            people.had_a_run()
        if alteration:
            with database.connect() as owner:
                owner.execute(alteration.encode())
        stop = threading.Event()
        writers = [Writer(random.Random(f"{seed} {number}")) for number in range(_WRITERS)]
        with ThreadPoolExecutor(_WRITERS + 2) as pool:
            work = [pool.submit(writer.work, database.url(), stop) for writer in writers]
            if not alteration:
                work += [pool.submit(_sweep, project, stop), pool.submit(_reinstall, database.url(), stop)]
            stop.wait(seconds)
            stop.set()
            return sum((each.result() for each in work), Counter())
    finally:
        ground.postgres.drop_database(name)


@dataclass(frozen=True)
class Deadlock:
    """The campaign."""

    name: str = "deadlock"

    def run(self, seed: int, short: bool) -> Figures:
        """Let them work for minutes, or seconds; and the control for less."""
        settings = {"deadlock_timeout": "200ms"}
        with Ground.prepared("deadlock", settings=settings) as ground, quiet():
            ends = _try_out(ground, "deadlock", str(seed), 4 if short else 120)
            control = _try_out(ground, "deadlock_control", str(seed), 2 if short else 10, _WITHOUT_ORDER)
        known = {"committed", "refused", "not serialized", "deadlocks", "cycles", "removed", "installations"}
        return {
            **{name: ends[name] for name in sorted(known)},
            "other_ends": sum(number for end, number in ends.items() if end not in known),
            "control_deadlocks": control["deadlocks"],
            "found": {end: number for end, number in ends.items() if end not in known},
        }

    def goals(self, figures: Figures) -> list[str]:
        """Nobody is a victim, everybody gets on, and the control finds some."""
        goals = {"deadlocks": "== 0", "other_ends": "== 0", "control_deadlocks": "> 0"}
        goals |= dict.fromkeys(("committed", "cycles", "removed", "installations"), "> 0")
        return missed(figures, goals)


CAMPAIGN = Deadlock()
