"""install.sql and uninstall.sql: idempotent, without a trace, with psql and without."""

import re
import subprocess
from pathlib import Path

import pytest
from psycopg import errors as pg

from local.postgres import Database
from tests.conftest import Servers
from tests.integration.conftest import Cleanup
from tests.integration.installing import INSTALL, UNINSTALL, dump, run


def test_installing_twice_changes_nothing(project: Database) -> None:
    run(project, INSTALL)
    once = dump(project)
    run(project, INSTALL)
    assert dump(project) == once


def test_installing_again_notes_anew_what_a_function_that_has_changed_had_read(project: Database) -> None:
    run(project, INSTALL)
    with project.connect() as owner:
        owner.execute(
            "create or replace function storage_cleanup.object_key(url text) returns text "
            "language sql immutable strict parallel safe return 'an answer of long ago'"
        )
        owner.execute(
            "insert into render_jobs (user_id, status, output_url) "
            "values (gen_random_uuid(), 'completed', '/storage/v1/object/public/images/a.png')"
        )
        run(project, INSTALL)
        found = owner.execute(
            "select count(*) from storage_cleanup.holder where object = storage_cleanup.hash('images/a.png')"
        ).fetchone()
    assert found == (1,)


@pytest.mark.parametrize("path", ["videos/clip.mkv", "very/new.mov"])
def test_white_space_is_stripped_from_a_path_and_no_letter(project: Database, path: str) -> None:
    r"""PostgreSQL before 18 reads ``\v`` in an escape string as the letter v."""
    run(project, INSTALL)
    with project.connect() as owner:
        key = owner.execute("select storage_cleanup.object_key(%s)", (f" \t\n\r\f\v{path}\v\f\r\n\t ",)).fetchone()
    assert key == (path,)


@pytest.mark.parametrize("script", [INSTALL, UNINSTALL], ids=lambda script: script.stem)
def test_every_escape_is_one_that_all_versions_of_postgresql_know(script: Path) -> None:
    strings = re.findall(r"\bE'((?:[^'\\]|\\.|'')*)'", script.read_text())
    assert [text for text in strings if re.search(r"(?<!\\)(?:\\\\)*\\[^\\'bfnrt0-7xuU]", text)] == []


def test_uninstalling_leaves_no_trace(project: Database) -> None:
    before = dump(project)
    run(project, INSTALL)
    assert dump(project) != before
    run(project, UNINSTALL)
    with project.connect("supabase_admin") as dashboard:  # SQL can't delete what the Storage API can
        dashboard.execute("set storage.allow_delete_query = true")
        dashboard.execute("delete from storage.buckets where id = 'storage-cleanup'")
    assert dump(project) == before
    with project.connect() as owner:
        assert owner.execute("select count(*) from pg_roles where rolname ~ 'storage_cleanup'").fetchone() == (0,)


def test_uninstalling_leaves_the_empty_bucket_and_installing_again_takes_it(project: Database) -> None:
    with project.connect() as owner:
        for script in (INSTALL, UNINSTALL, INSTALL):
            run(project, script)
            found = owner.execute("select id, public from storage.buckets").fetchall()
            assert found == [("storage-cleanup", False)]
        with pytest.raises(pg.InsufficientPrivilege):
            owner.execute("delete from storage.buckets")


def test_uninstalling_twice_is_fine(project: Database) -> None:
    run(project, UNINSTALL)
    run(project, UNINSTALL)


def test_both_scripts_run_through_psql(project: Database) -> None:
    for script in (INSTALL, UNINSTALL):
        command: list[str | Path] = [
            project.postgres.program("psql"),
            "-v",
            "ON_ERROR_STOP=1",
            "-qf",
            script,
            project.url(),
        ]
        subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("script", [INSTALL, UNINSTALL])
def test_another_role_is_told_in_one_sentence_which_one_to_use(project: Database, script: Path) -> None:
    """With the worker's URL instead of the administrator's there were 80 lines of errors, and status 0."""
    run(project, INSTALL)
    with project.connect() as owner:
        owner.execute("alter role storage_cleanup_worker login")
    psql = project.postgres.program("psql")
    worker = project.url("storage_cleanup_worker")
    command: list[str | Path] = [psql, "-v", "ON_ERROR_STOP=1", worker, "-qf", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.count("ERROR") == 1
    assert "storage_cleanup_worker may not" in done.stderr
    assert "ADMIN_DATABASE_URL" in done.stderr
    with project.connect() as owner:
        assert owner.execute("select storage_cleanup.schema_version()").fetchone() == (1,)


def test_what_was_rendered_before_the_installation_is_found(project: Database) -> None:
    with project.connect() as owner:
        owner.execute(
            "insert into render_jobs (user_id, status) select gen_random_uuid(), 'completed' from generate_series(1, 3)"
        )
        owner.execute("insert into render_jobs (user_id, status) values (gen_random_uuid(), 'running')")
        owner.execute(
            "insert into user_assets (user_id, asset_type, metadata) "
            "select user_id, 'generated_saved', jsonb_build_object('render_job_id', id) from render_jobs limit 1"
        )
        run(project, INSTALL)
        assert owner.execute("select count(*) from storage_cleanup.candidate").fetchone() == (2,)


def test_it_says_what_is_missing(project: Database) -> None:
    with project.connect() as owner:
        owner.execute("drop table render_jobs")
    with pytest.raises(pg.RaiseException, match=r"public\.render_jobs and public\.user_assets must exist"):
        run(project, INSTALL)


def test_an_ordinary_user_can_render_and_save_after_it(project: Database) -> None:
    """Triggers and expression indexes run with the rights of whoever writes the row."""
    run(project, INSTALL)
    with project.connect("authenticated") as user:
        user.execute(
            """select set_config('request.jwt.claims', '{"sub": "7b3c6f1e-0000-4000-8000-000000000000"}', false)"""
        )
        user.execute("insert into render_jobs (user_id, status, output_url) values (auth.uid(), 'running', null)")
        user.execute(
            "update render_jobs set status = 'completed', output_url = '/object/sign/images/a%20b.png?token=t'"
        )
        user.execute(
            "insert into user_assets (user_id, asset_type, metadata) "
            "select user_id, 'generated_saved', jsonb_build_object('render_job_id', upper(id::text)) from render_jobs"
        )
        user.execute("delete from user_assets")
    with project.connect() as owner:
        assert owner.execute("select has_file from storage_cleanup.candidate").fetchone() == (True,)


@pytest.mark.parametrize(
    "forbidden",
    [
        "select * from public.render_jobs",
        "select * from public.user_assets",
        "select * from storage.objects",
        "delete from public.render_jobs",
        "insert into storage_cleanup.deletion (job_id) values (gen_random_uuid())",
        "update storage_cleanup.deletion set state = 'done'",
        "delete from storage_cleanup.run",
        "insert into storage_cleanup.candidate values (gen_random_uuid(), now(), now(), true)",
        "select storage_cleanup.compare_slice()",
        "create table public.mine ()",
        "create table storage_cleanup.mine ()",
    ],
)
def test_the_worker_can_do_nothing_else(servers: Servers, forbidden: str) -> None:
    with servers.database.connect("storage_cleanup_worker") as worker, pytest.raises(pg.InsufficientPrivilege):
        worker.execute(forbidden)


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_nobody_else_can_call_the_cycle(servers: Servers, role: str) -> None:
    with servers.database.connect(role) as stranger, pytest.raises(pg.InsufficientPrivilege):
        stranger.execute("select storage_cleanup.release('{}', 'x')")


def test_functions_with_rights_of_their_own_have_a_fixed_search_path(servers: Servers) -> None:
    loose = servers.execute(
        "select proname from pg_proc where pronamespace = 'storage_cleanup'::regnamespace and prosecdef "
        "and not 'search_path=\"\"' = any (coalesce(proconfig, '{}'))"
    )
    assert loose == []


@pytest.mark.parametrize(
    "sabotage",
    [
        "drop schema storage_cleanup cascade",
        "create or replace function storage_cleanup.schema_version() returns integer language sql immutable return 0",
    ],
)
def test_without_the_right_schema_the_function_names_the_file_to_run(
    servers: Servers, cleanup: Cleanup, sabotage: str
) -> None:
    servers.execute(sabotage)
    answer = cleanup()
    assert answer["status"] == "failed"
    assert "run database/install.sql" in answer["message"]
