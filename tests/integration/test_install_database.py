"""`make install-database`: while the application works, interrupted anywhere, repeated, and the same as install.sql."""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import errors as pg

from database import install as module
from database import status as status_module
from database.bundle import ONE_AT_A_TIME, ROOM, Room
from database.install import Connection, Installation, RefusedError, install, session
from database.status import status
from local.postgres import ROOT, Database
from tests.integration.direct import compare
from tests.integration.installing import UNINSTALL, dump, run

ONE_RENDER = "insert into render_jobs (user_id, status) values (gen_random_uuid(), 'completed')"
ONE_RENDER_WITH_FILE = (
    "insert into render_jobs (user_id, status, output_url) values (gen_random_uuid(), 'x', 'images/a.png')"
)
ONE_ASSET_WITH_FILE = (
    "insert into user_assets (user_id, asset_type, metadata) "
    """values (gen_random_uuid(), 'x', '{"file": "images/a.png"}')"""
)
IS_NOTED = (
    "select exists (select from storage_cleanup.holder where object = storage_cleanup.hash('images/a.png')), "
    "exists (select from storage_cleanup.needed_among(array['images/a.png']))"
)
TERMINATE = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'storage_cleanup'"
UNSUITABLE = {
    "id is a number": (
        "alter table render_jobs drop id, add id bigint primary key",
        "public.render_jobs.id is of type bigint, and must be uuid",
    ),
    "no primary key": (
        "alter table render_jobs drop constraint render_jobs_pkey",
        "public.render_jobs.id has neither a primary key nor a unique index of its own",
    ),
    "unique together with something else only": (
        "alter table render_jobs drop constraint render_jobs_pkey, add primary key (id, created_at)",
        "public.render_jobs.id has neither a primary key nor a unique index of its own",
    ),
    "a view": (
        "alter table render_jobs rename to jobs; create view render_jobs as select * from jobs",
        "public.render_jobs is a view",
    ),
    "a foreign table": (
        "alter table user_assets rename to assets; "
        "create foreign data wrapper far; create server far foreign data wrapper far; "
        "create foreign table user_assets (id uuid, metadata jsonb) server far",
        "public.user_assets is a foreign table",
    ),
    "partitioned": (
        "drop table user_assets; create table user_assets (id uuid, metadata jsonb) partition by hash (id)",
        "public.user_assets is partitioned",
    ),
    "a partition": (
        "create table everything (like render_jobs) partition by range (created_at); "
        "alter table everything attach partition render_jobs default",
        "public.render_jobs is a child or partition of public.everything",
    ),
    "a parent": (
        "create table archived_assets () inherits (user_assets)",
        "public.user_assets has a child, public.archived_assets",
    ),
    "a child": (
        "create table things (id uuid not null); alter table user_assets inherit things",
        "public.user_assets is a child or partition of public.things",
    ),
    "no metadata": ("alter table user_assets drop metadata", "public.user_assets has no column metadata"),
    "metadata is text": (
        "alter table user_assets alter metadata drop default, alter metadata type text",
        "public.user_assets.metadata is of type text, and must be jsonb",
    ),
    "assets without a primary key": (
        "alter table user_assets drop constraint user_assets_pkey",
        "public.user_assets.id has neither a primary key nor a unique index of its own",
    ),
    "assets without a name": (
        "alter table user_assets drop constraint user_assets_pkey, alter id drop not null, add unique (id)",
        "public.user_assets.id may be null, and must name a row",
    ),
    "no asset id": ("alter table user_assets drop id", "public.user_assets has no column id"),
}


def by_tool(database: Database, room: Path = ROOM) -> bool:
    return install(database.url(), Room(room), lambda _: None)


def by_script(database: Database, room: Path = ROOM) -> None:
    with database.connect() as owner:
        owner.execute(Room(room).bundle().encode())


BOTH_WAYS = pytest.mark.parametrize("way", [by_tool, by_script])


def is_trusted(database: Database) -> bool:
    """Return whether a cycle may claim something now."""
    with database.connect() as owner:
        try:
            owner.execute("select storage_cleanup.assert_trust()")
        except (pg.ObjectNotInPrerequisiteState, pg.InvalidSchemaName, pg.UndefinedFunction):
            return False
    return True


def faults(database: Database) -> list[str]:
    return [f"{part}: {fault}" for part, fault in status(database.url()) if fault]


class Background:
    """An installation in another thread, of which one can wait for lines."""

    def __init__(self, database: Database, room: Path = ROOM) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        pool = ThreadPoolExecutor(1)
        self.result: Future[bool] = pool.submit(install, database.url(), Room(room), self._lines.put)
        pool.shutdown(wait=False)

    def wait_for(self, text: str) -> None:
        heard: list[str] = []
        while text not in "".join(heard):
            assert not self.result.done(), (heard, self.result)
            with suppress(queue.Empty):
                heard.append(self._lines.get(timeout=0.1))


def two_rows_a_block(owner: Connection, table: str) -> None:
    """Make each row so long that a block takes no third one."""
    owner.execute(f"alter table {table} add padding char(3000) default 'x'".encode())
    owner.execute(f"alter table {table} alter padding set storage plain".encode())


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A later release, with another migration and a function that needs it."""
    room = Path(shutil.copytree(ROOM, tmp_path / "database", ignore=shutil.ignore_patterns("__pycache__")))
    (room / "migrations" / "0002_notes.sql").write_text(
        "create table storage_cleanup.note (text text not null);\n"
        "insert into storage_cleanup.note values ('it''s $1');\n"
    )
    with (room / "functions" / "health.sql").open("a") as health:
        health.write(
            "create or replace function storage_cleanup.notes() returns setof storage_cleanup.note language sql "
            "as 'select * from storage_cleanup.note';\n"
        )
    return room


# -- what is there afterwards ------------------------------------------------------------------------------------------


def test_both_ways_make_the_same(project: Database) -> None:
    by_script(project)
    by_hand = dump(project, "--schema-only")
    run(project, UNINSTALL)
    assert by_tool(project)
    assert dump(project, "--schema-only") == by_hand


@BOTH_WAYS
def test_what_is_installed_takes_no_lock_on_the_applications_tables(
    project: Database, way: Callable[[Database], object]
) -> None:
    """Somebody holds the strongest lock meanwhile: whoever wanted any would wait for it."""
    way(project)
    before = dump(project)
    with project.connect(autocommit=False) as application:
        application.execute("lock table render_jobs, user_assets in access exclusive mode")
        assert by_tool(project) is False
        assert faults(project) == []
        by_script(project)
    assert dump(project) == before


def test_columns_that_only_health_reads_are_looked_for_at_the_first_installation(project: Database) -> None:
    with project.connect() as owner:
        owner.execute("alter table user_assets drop file_size")
    with pytest.raises(RefusedError, match="file_size does not exist"):
        by_tool(project)
    assert not is_trusted(project)


UNSAVED = (
    "select job_id from storage_cleanup.candidate where not exists "
    "(select from storage_cleanup.mention where id = job_id) order by 1"
)


def test_what_was_there_before_is_found_in_slices(project: Database) -> None:
    by_tool(project)
    with project.connect() as owner:
        two_rows_a_block(owner, "render_jobs")
        two_rows_a_block(owner, "user_assets")
        for _ in range(10):
            owner.execute(ONE_RENDER)
        owner.execute("insert into render_jobs (user_id, status) values (gen_random_uuid(), 'running')")
        owner.execute(
            "insert into user_assets (user_id, asset_type, metadata) select user_id, 'x', jsonb_build_object("
            "'render_job_id', case n when 1 then id::text else upper(id::text) end) "
            "from (select *, row_number() over () as n from render_jobs where status = 'completed' limit 5) as job"
        )
        by_triggers = owner.execute(UNSAVED).fetchall()
        assert len(by_triggers) == 5
        for noted in ("candidate", "holder", "mention", "reference"):
            owner.execute(f"truncate storage_cleanup.{noted}".encode())
        owner.execute("update storage_cleanup.comparison set last_at = null, fingerprint = null")
        slices = 0
        while owner.execute("select is_done from storage_cleanup.compare_slice(1)").fetchone() == (False,):
            slices += 1
        assert slices > 10
        assert owner.execute(UNSAVED).fetchall() == by_triggers


@BOTH_WAYS
def test_what_somebody_holds_and_leaves_as_it_is_is_noted_as_well(
    project: Database, way: Callable[[Database], object]
) -> None:
    with project.connect() as owner, project.connect(autocommit=False) as application:
        owner.execute(f"{ONE_RENDER_WITH_FILE}; {ONE_ASSET_WITH_FILE}".encode())
        application.execute("select from render_jobs, user_assets for update")
        way(project)
        application.rollback()
        assert is_trusted(project)
        assert owner.execute(IS_NOTED).fetchone() == (True, True)


@pytest.mark.parametrize(
    ("table", "insert", "moving"),
    [
        (
            "user_assets",
            "insert into user_assets (user_id, asset_type, metadata) "
            """select gen_random_uuid(), 'x', '{"file": "images/a.png"}' from generate_series(1, 6)""",
            "title = title",
        ),
        (
            "render_jobs",
            "insert into render_jobs (user_id, status, output_url) "
            "select gen_random_uuid(), 'x', 'images/a.png' from generate_series(1, 6)",
            "progress = 50",
        ),
    ],
)
def test_a_row_that_moves_to_where_the_first_look_has_been_is_found(
    project: Database, table: str, insert: str, moving: str
) -> None:
    """What is read of it doesn't change, so its trigger notes nothing."""
    next_part = "select is_done from storage_cleanup.compare_slice(1)"
    noted = (
        "select count(*) from (select job_id::text from storage_cleanup.holder "
        "union select source from storage_cleanup.reference) as noted"
    )
    with project.connect() as owner:
        two_rows_a_block(owner, table)
        by_tool(project)
        owner.execute(insert.encode())
        owner.execute(f"delete from {table} where ctid = '(0,1)'".encode())
        owner.execute(f"vacuum {table}".encode())
        owner.execute("truncate storage_cleanup.holder, storage_cleanup.mention, storage_cleanup.reference")
        while owner.execute(
            "select of_table::text, block from storage_cleanup.comparison join storage_cleanup.comparison_steps() "
            "using (step) where at_work_on is not null"
        ).fetchone() != (table, 1):
            owner.execute(next_part)
        owner.execute(f"update {table} set {moving} where ctid = '(2,2)'".encode())
        assert owner.execute(f"select max(ctid) < '(2,2)', count(*) from {table}".encode()).fetchone() == (True, 5)
        assert owner.execute(noted).fetchone() == (1,)
        while owner.execute(next_part).fetchone() == (False,):
            pass
        assert owner.execute(noted).fetchone() == (5,)


def test_what_a_trigger_missed_is_found_when_it_is_made_again(project: Database) -> None:
    by_tool(project)
    with project.connect() as owner:
        owner.execute("drop trigger storage_cleanup_job_inserted on render_jobs")
        owner.execute(ONE_RENDER)
        assert by_tool(project)
        assert owner.execute("select count(*) from storage_cleanup.candidate").fetchone() == (1,)


# -- beside the application --------------------------------------------------------------------------------------------


def live(database: Database, stop: threading.Event) -> int:
    """Render and save as an application that waits for nothing longer than two seconds; return how many times."""
    rounds = 0
    with database.connect(autocommit=False) as connection:
        connection.execute("set lock_timeout = '2s'")
        connection.commit()
        while not stop.is_set():
            job = uuid4()
            for statement, values in (
                ("insert into render_jobs (id, user_id, status) values (%s, gen_random_uuid(), 'running')", [job]),
                ("update render_jobs set status = 'completed', output_url = %s where id = %s", [f"images/{job}", job]),
                (
                    "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'x', %s)",
                    [json.dumps({"render_job_id": str(job)})],
                ),
                ("delete from user_assets where metadata->>'render_job_id' = %s and %s", [str(job), rounds % 2 == 0]),
            ):
                connection.execute(statement.encode(), values)
                if rounds % 3:
                    connection.commit()
            connection.commit()
            rounds += 1
    return rounds


def test_the_application_meets_no_error_and_waits_for_nothing(project: Database) -> None:
    stop = threading.Event()
    with project.connect() as owner:
        owner.execute(
            "insert into render_jobs (user_id, status, output_url) "
            "select gen_random_uuid(), 'completed', 'images/' || n from generate_series(1, 8000) as n"
        )
        with ThreadPoolExecutor(3) as pool:
            people = [pool.submit(live, project, stop) for _ in range(3)]
            try:
                for _ in range(2):
                    assert by_tool(project)
                    owner.execute("update storage_cleanup.comparison set last_at = null, fingerprint = null")
                    owner.execute("drop index storage_cleanup_render_job_id")
                assert by_tool(project)
            finally:
                stop.set()
            assert min(person.result() for person in people) > 0
        assert faults(project) == []
        by_triggers = owner.execute("select count(*) from storage_cleanup.candidate").fetchone()
        assert compare(owner) == 0
        assert by_triggers is not None
        assert by_triggers[0] >= 8000


def test_others_write_on_while_a_trigger_waits_for_a_long_transaction(project: Database) -> None:
    by_tool(project)
    with project.connect(autocommit=False) as long, project.connect() as other:
        other.execute("drop trigger storage_cleanup_asset_inserted on user_assets")
        other.execute("set lock_timeout = '2s'")
        long.execute("insert into user_assets (user_id, asset_type) values (gen_random_uuid(), 'x')")
        installation = Background(project)
        installation.wait_for("trigger storage_cleanup_asset_inserted: waits for pid")
        for _ in range(100):
            other.execute("insert into user_assets (user_id, asset_type) values (gen_random_uuid(), 'x')")
        assert not installation.result.done()
        long.commit()
        assert installation.result.result(timeout=60)
    assert faults(project) == []


def test_a_first_look_gives_way_to_who_completes_the_same_job(project: Database) -> None:
    by_tool(project)
    with project.connect(autocommit=False) as application, project.connect() as owner:
        owner.execute(ONE_RENDER)
        owner.execute("truncate storage_cleanup.candidate")
        owner.execute("update storage_cleanup.comparison set last_at = null, fingerprint = null")
        application.execute("update render_jobs set output_url = 'images/new'")
        installation = Background(project)
        installation.wait_for("first look: waits for")
        application.commit()
        assert installation.result.result(timeout=60)
        assert owner.execute("select has_file from storage_cleanup.candidate").fetchall() == [(True,)]


@pytest.mark.parametrize("tables", [("render_jobs", "user_assets"), ("user_assets", "render_jobs")])
def test_the_script_gives_way_to_a_transaction_that_goes_from_one_table_to_the_other(
    project: Database, tables: tuple[str, str]
) -> None:
    """Otherwise one of them would be the victim of a deadlock, and it may be the application."""
    waiting = (
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '-- Storage Cleanup%'"
    )
    with project.connect(autocommit=False) as application, project.connect() as other, ThreadPoolExecutor(1) as pool:
        application.execute(f"update {tables[0]} set created_at = now()".encode())
        installation = pool.submit(by_script, project)
        try:
            wait_until(lambda: other.execute(waiting).fetchone() == (1,) or installation.done())
            application.execute(f"update {tables[1]} set created_at = now()".encode())
        finally:
            application.commit()
        installation.result()
    assert is_trusted(project)


def test_two_installations_do_not_meet(project: Database) -> None:
    with project.connect() as other:
        other.execute(f"select pg_advisory_lock({ONE_AT_A_TIME})".encode())
        with pytest.raises(RefusedError, match="another installation is at work"):
            by_tool(project)


# -- interrupted and repeated ------------------------------------------------------------------------------------------


def test_it_may_be_interrupted_after_every_step(project: Database) -> None:
    """Until all of it is there, nothing is claimed; and whatever is there is not made again."""
    with project.connect() as owner:
        owner.execute(ONE_RENDER)
        by_tool(project)
        whole = dump(project, "--schema-only")
        for steps in range(1, 30):
            run(project, UNINSTALL)
            lines: list[str] = []

            def say(line: str, lines: list[str] = lines, steps: int = steps) -> None:
                lines.append(line)
                if len(lines) == steps:
                    owner.execute(TERMINATE)

            try:
                install(project.url(), say=say)
            except RefusedError:
                assert is_trusted(project) is ({"claims: allowed", "first look: done"} <= set(lines))
                repeated: list[str] = []
                install(project.url(), say=repeated.append)
                assert {line for line in lines if "made" in line or "applied" in line}.isdisjoint(repeated)
            assert dump(project, "--schema-only") == whole
            assert owner.execute("select count(*) from storage_cleanup.candidate").fetchone() == (1,)
            if len(lines) < steps:
                break
        assert steps > 10


def test_an_index_that_waits_says_for_whom_and_is_built_again_when_it_was_interrupted(
    project: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_SECONDS", 0.1)
    building = (
        "select count(*) from pg_stat_activity "
        "where query like 'create index concurrently%' and wait_event_type = 'Lock'"
    )
    with project.connect(autocommit=False) as application, project.connect() as owner:
        application.execute("insert into user_assets (user_id, asset_type) values (gen_random_uuid(), 'x')")
        installation = Background(project)
        wait_until(lambda: owner.execute(building).fetchone() == (1,))
        installation.wait_for(f"waiting for writers before build for pid {application.info.backend_pid} of postgres")
        owner.execute(TERMINATE)
        with pytest.raises(RefusedError):
            installation.result.result(timeout=60)
        invalid = owner.execute("select indexrelid::regclass::text from pg_index where not indisvalid").fetchall()
        assert invalid == [("storage_cleanup_new",)]
        assert not is_trusted(project)
        application.commit()
        assert by_tool(project)
        assert owner.execute("select count(*) from pg_index where not indisvalid").fetchone() == (0,)
    assert faults(project) == []


def test_it_may_be_killed_and_started_again(project: Database) -> None:
    command = [sys.executable, "-m", "database.install"]
    environment = {**os.environ, "ADMIN_DATABASE_URL": project.url()}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        while "index" not in first.stdout.readline():
            pass
        first.kill()
    with project.connect() as owner:  # the server notices at the end of the statement
        wait_until(
            lambda: owner.execute(f"select pg_try_advisory_lock({ONE_AT_A_TIME})".encode()).fetchone() == (True,)
        )

    def again() -> str:
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    assert again().endswith("The installation is complete.\n")
    assert again() == "Nothing to do: all of it is there.\n"


@BOTH_WAYS
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (
            "update pg_index set indisvalid = false where indexrelid = 'storage_cleanup_render_job_id'::regclass",
            "invalid",
        ),
        ("drop index storage_cleanup_render_job_id", "missing"),
        ("comment on index storage_cleanup_render_job_id is null", "outdated"),
    ],
)
def test_nothing_is_claimed_without_an_index_until_it_is_repaired(
    project: Database, way: Callable[[Database], object], damage: str, fault: str
) -> None:
    by_tool(project)
    whole = dump(project, "--schema-only")
    with project.connect("supabase_admin") as superuser:
        superuser.execute(damage.encode())
    assert not is_trusted(project)
    assert [line.rpartition(" ")[2] for line in faults(project)] == [fault]
    way(project)
    assert is_trusted(project)
    assert dump(project, "--schema-only") == whole


@pytest.mark.parametrize(
    ("damage", "of_trigger", "fault"),
    [
        (
            "alter table user_assets disable trigger storage_cleanup_asset_inserted",
            "storage_cleanup_asset_inserted",
            "different",
        ),
        (
            "alter table user_assets enable trigger storage_cleanup_asset_applied",
            "storage_cleanup_asset_applied",
            "different",
        ),
        ("drop trigger storage_cleanup_asset_deleted on user_assets", "storage_cleanup_asset_deleted", "missing"),
        (
            "create or replace trigger storage_cleanup_job_truncated after truncate on render_jobs "
            "for each statement execute function storage_cleanup.assets_gone()",
            "storage_cleanup_job_truncated",
            "different",
        ),
        (
            "create or replace trigger storage_cleanup_asset_updated after update on user_assets "
            "referencing old table as old_rows new table as new_rows "
            "for each statement execute function storage_cleanup.assets_written('title')",
            "storage_cleanup_asset_updated",
            "different",
        ),
    ],
)
def test_a_trigger_that_is_different_is_made_again(project: Database, damage: str, of_trigger: str, fault: str) -> None:
    by_tool(project)
    whole = dump(project, "--schema-only")
    with project.connect() as owner:
        owner.execute(damage.encode())
    assert [line.partition(": the triggers")[0] for line in faults(project)] == [
        f"trigger {of_trigger}: {fault}",
        "preflight (changed)",
    ]
    assert by_tool(project)
    assert faults(project) == []
    assert is_trusted(project)
    assert dump(project, "--schema-only") == whole


@BOTH_WAYS
def test_what_other_functions_have_read_is_not_believed_until_it_is_read_again(
    project: Database, way: Callable[[Database], object]
) -> None:
    by_tool(project)
    with project.connect() as owner:
        owner.execute(
            "create or replace function storage_cleanup.readings(value text) returns text[] "
            "language sql immutable strict parallel safe return array['an answer of another release']"
        )
        owner.execute(f"{ONE_RENDER_WITH_FILE}; {ONE_ASSET_WITH_FILE}".encode())
        owner.execute("select storage_cleanup.compare_if_due()")
        assert is_trusted(project)
        assert owner.execute(IS_NOTED).fetchone() == (False, False)
        with session(project.url()) as connection, connection.transaction():
            Installation(connection, Room(), lambda _: None).replace_functions()
        assert not is_trusted(project)
        way(project)
        assert is_trusted(project)
        assert owner.execute(IS_NOTED).fetchone() == (True, True)


# -- migrations --------------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_a_second_migration_is_applied_once(
    project: Database, second: Path, way: Callable[[Database, Path], object]
) -> None:
    way(project, second)
    at_once = dump(project, "--schema-only")
    run(project, UNINSTALL)
    way(project, ROOM)
    for _ in range(2):
        way(project, second)
        with project.connect() as owner:
            assert owner.execute("select text from storage_cleanup.notes()").fetchall() == [("it's $1",)]
            recorded = owner.execute("select number, name from storage_cleanup.migration order by 1").fetchall()
            assert recorded == [(1, "ledger"), (2, "notes")]
    assert dump(project, "--schema-only") == at_once
    with pytest.raises((RefusedError, pg.RaiseException), match=r"that this release doesn't know, 2 \(notes\)"):
        way(project, ROOM)


@pytest.mark.parametrize(("first", "then"), [(by_tool, by_script), (by_script, by_tool)])
def test_each_way_knows_what_the_other_has_applied(
    project: Database, second: Path, first: Callable[[Database, Path], object], then: Callable[[Database, Path], object]
) -> None:
    first(project, second)
    before = dump(project)
    then(project, second)
    assert dump(project) == before


def test_functions_change_between_claims_and_never_within_one(project: Database, second: Path) -> None:
    by_tool(project)
    with project.connect(autocommit=False) as claim:
        claim.execute("select storage_cleanup.assert_trust()")  # keeps to the end what every claim begins with
        installation = Background(project, second)
        installation.wait_for(f"functions: waits for pid {claim.info.backend_pid}")
        assert not is_trusted(project)
        claim.commit()
        assert installation.result.result(timeout=60)
    assert is_trusted(project)


def test_nothing_is_claimed_until_saves_under_the_functions_before_have_ended(project: Database, second: Path) -> None:
    by_tool(project)
    with project.connect(autocommit=False) as save:
        save.execute("insert into user_assets (user_id, asset_type) values (gen_random_uuid(), 'x')")
        installation = Background(project, second)
        installation.wait_for(f"claims: wait for pid {save.info.backend_pid}")
        assert not is_trusted(project)
        save.commit()
        assert installation.result.result(timeout=60)
    assert is_trusted(project)


@BOTH_WAYS
def test_what_was_interrupted_between_functions_and_claims_is_taken_up(
    project: Database, way: Callable[[Database], object]
) -> None:
    by_tool(project)
    with project.connect() as owner:
        owner.execute("update storage_cleanup.gate set opens_at = 'infinity'")
        assert faults(project)[-1].startswith("preflight (installing): an installation is at work")
        way(project)
        (opens_in,) = (
            owner.execute("select opens_at < now() + interval '1 minute' from storage_cleanup.gate").fetchone() or ()
        )
    assert opens_in


def test_a_claim_that_waited_for_the_script_is_refused(project: Database) -> None:
    """Its own body is still that of the functions before."""
    by_script(project)
    with project.connect() as owner, project.connect(autocommit=False) as claim, ThreadPoolExecutor(1) as pool:
        claim.execute("select 1")
        owner.execute(
            "create or replace function storage_cleanup.has_file(output_url text) returns boolean "
            "language sql immutable parallel safe as 'select true'"
        )
        with project.connect(autocommit=False) as editor:
            editor.execute(Room().bundle().replace("\nbegin;\n", "\n").replace("\ncommit;\n", "\n").encode())
            waiting = pool.submit(claim.execute, b"select storage_cleanup.assert_trust()")
            wait_until(
                lambda: (
                    owner.execute(
                        "select wait_event_type from pg_stat_activity where pid = %s", (claim.info.backend_pid,)
                    ).fetchone()
                    == ("Lock",)
                )
            )
            editor.commit()
        with pytest.raises(pg.ObjectNotInPrerequisiteState, match="an installation is at work"):
            waiting.result()


def test_a_migration_that_fails_leaves_nothing(project: Database, second: Path) -> None:
    by_tool(project)
    before = dump(project)
    with (second / "migrations" / "0002_notes.sql").open("a") as migration:
        migration.write("select 1 / 0;")
    with pytest.raises(RefusedError, match="division by zero"):
        by_tool(project, second)
    assert dump(project) == before
    assert is_trusted(project)


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "sentence"), UNSUITABLE.values(), ids=UNSUITABLE)
def test_tables_that_cannot_be_guarded_are_refused_before_anything_is_changed(
    project: Database, change: str, sentence: str
) -> None:
    with project.connect("supabase_admin") as superuser:
        superuser.execute(change.encode())
        for name in ("render_jobs", "user_assets"):
            superuser.execute(f"alter table {name} owner to postgres".encode())
    before = dump(project)
    for way in (by_tool, by_script):
        with pytest.raises((RefusedError, pg.RaiseException)) as refused:
            way(project)
        assert str(refused.value).startswith(sentence)
    assert dump(project) == before


@BOTH_WAYS
def test_a_schema_from_before_migrations_is_to_be_uninstalled_first(
    project: Database, way: Callable[[Database], object]
) -> None:
    with project.connect() as owner:
        owner.execute("create schema storage_cleanup")
        owner.execute("create function storage_cleanup.schema_version() returns integer language sql return 1")
    before = dump(project)
    with pytest.raises((RefusedError, pg.RaiseException), match=r"run the uninstall\.sql that came with it first"):
        way(project)
    assert dump(project) == before


@pytest.mark.parametrize(
    "url", ["postgresql://postgres.abc@pooler.supabase.com:6543/postgres", "host=127.0.0.1 port=6543 user=postgres"]
)
def test_transaction_mode_is_refused_and_told_why(url: str) -> None:
    with pytest.raises(RefusedError, match="each transaction may get another session") as refused:
        install(url)
    assert "session mode (port 5432)" in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"ADMIN_DATABASE_URL": "postgresql://postgres@127.0.0.1:6543/postgres"}, "port 6543 is the pooler's"),
        ({"ADMIN_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/postgres"}, "connection"),
        ({}, "ADMIN_DATABASE_URL isn't set"),
    ],
)
def test_what_is_refused_is_one_line_and_a_status(
    variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ADMIN_DATABASE_URL", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert module.main() == 1
    output = capsys.readouterr().err
    assert output.startswith("Not installed: ")
    assert output.count("\n") == 1
    assert sentence in output


def test_another_role_is_told_which_one_to_use(project: Database) -> None:
    with pytest.raises(RefusedError, match=r"authenticator may not .* \(ADMIN_DATABASE_URL"):
        install(project.url("authenticator"))


# -- status ------------------------------------------------------------------------------------------------------------


def test_the_status_is_a_line_a_part_and_fails_until_all_is_there(
    project: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADMIN_DATABASE_URL", project.url())
    assert status_module.main() == 1
    assert "migration 1 (ledger): missing\nNot complete" in capsys.readouterr().out
    by_tool(project)
    assert status_module.main() == 0
    assert capsys.readouterr().out.endswith("Complete.\n")
    with project.connect() as owner:
        owner.execute("create table more_assets () inherits (user_assets)")
    assert status_module.main() == 1
    assert capsys.readouterr().err.startswith("Not installable: public.user_assets has a child")


def test_the_status_tells_what_is_missing_and_changes_nothing(project: Database, second: Path) -> None:
    before = dump(project)
    assert faults(project) == ["migration 1 (ledger): missing"]
    assert dump(project) == before
    by_tool(project)
    before = dump(project)
    parts = [part for part, _ in status(project.url())]
    assert "functions of schema version 1" in parts
    assert "index storage_cleanup_render_job_id" in parts
    assert faults(project) == []
    assert [part for part, fault in status(project.url(), Room(second)) if fault] == ["migration 2 (notes)"]
    with project.connect() as owner:
        owner.execute("create or replace function storage_cleanup.notes() returns integer language sql return 1")
        owner.execute("revoke execute on function storage_cleanup.distrust() from storage_cleanup_worker")
        assert faults(project) == ["functions of schema version 1: missing or different"]
        owner.execute("drop function storage_cleanup.notes()")
        owner.execute("grant execute on function storage_cleanup.distrust() to storage_cleanup_worker")
    assert dump(project) == before
