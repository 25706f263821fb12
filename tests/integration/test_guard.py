"""The guard: a save and a deletion of the same job can't both succeed."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg

from local.application import Application, Link, Render
from tests.conftest import Servers
from tests.integration.conftest import Cleanup

HOUR = timedelta(hours=1)
Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def sweeper(servers: Servers, application: Application) -> Iterator[Connection]:
    """A session of the role that claims, outside of any transaction."""
    with servers.database.connect("storage_cleanup_worker") as connection:
        yield connection


@pytest.fixture
def saver(servers: Servers, application: Application) -> Iterator[Connection]:
    """A session of the application, inside a transaction."""
    with servers.database.connect(autocommit=False) as connection:
        yield connection


def key(render: Render) -> str:
    return f"{render.bucket}/{render.name}"


def claim(sweeper: Connection, *renders: Render, run: UUID | None = None) -> dict[UUID, str]:
    """Claim jobs as a cycle does, and return the outcomes by job."""
    rows = sweeper.execute(
        "select job_id, outcome from storage_cleanup.claim(%s, %s, %s, %s, false, null)",
        (run or uuid4(), [render.job_id for render in renders], [key(render) for render in renders], HOUR),
    )
    return dict(rows.fetchall())


def save(saver: Connection, job: UUID | str) -> None:
    saver.execute(
        "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'generated_saved', %s)",
        (json.dumps({"render_job_id": str(job)}),),
    )


def test_a_save_of_a_claimed_job_is_refused_with_words_for_the_user(
    application: Application, sweeper: Connection
) -> None:
    render = application.render()
    assert claim(sweeper, render) == {render.job_id: "claimed"}
    with pytest.raises(pg.ForeignKeyViolation) as refusal:
        application.save(render)
    assert str(render.job_id) in str(refusal.value.diag.message_primary)
    assert "can no longer be saved" in str(refusal.value.diag.message_primary)
    assert refusal.value.diag.constraint_name == "storage_cleanup_guard"


def test_a_save_before_the_claim_wins(application: Application, sweeper: Connection) -> None:
    render = application.render()
    application.save(render)
    assert claim(sweeper, render) == {render.job_id: "saved"}


def test_a_claim_passes_over_a_job_whose_save_is_under_way(
    application: Application, sweeper: Connection, saver: Connection
) -> None:
    render = application.render()
    save(saver, render.job_id)
    assert claim(sweeper, render) == {render.job_id: "locked"}
    saver.commit()
    assert claim(sweeper, render) == {render.job_id: "saved"}


def test_a_save_waits_for_a_claim_that_is_being_made_and_is_then_refused(
    application: Application, servers: Servers
) -> None:
    render = application.render()
    refused: list[str] = []

    def save_meanwhile() -> None:
        try:
            application.save(render)
        except pg.ForeignKeyViolation as error:
            refused.append(str(error))

    with servers.database.connect("storage_cleanup_worker", autocommit=False) as claimer:
        claim(claimer, render)
        thread = threading.Thread(target=save_meanwhile)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()  # it waits
        claimer.commit()
        thread.join(5)
    assert len(refused) == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_saver_with_an_old_snapshot_is_refused_as_well(
    application: Application, sweeper: Connection, saver: Connection, level: str
) -> None:
    render = application.render()
    saver.execute(f"set transaction isolation level {level}")
    saver.execute("select count(*) from render_jobs")  # takes the snapshot
    claim(sweeper, render)
    with pytest.raises((pg.SerializationFailure, pg.ForeignKeyViolation)):
        save(saver, render.job_id)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_saver_above_read_committed_can_save(
    application: Application, sweeper: Connection, saver: Connection, level: str
) -> None:
    render = application.render()
    saver.execute(f"set transaction isolation level {level}")
    save(saver, render.job_id)
    saver.commit()
    assert claim(sweeper, render) == {render.job_id: "saved"}


def test_claiming_above_read_committed_is_refused(application: Application, sweeper: Connection) -> None:
    render = application.render()
    sweeper.execute("set default_transaction_isolation = 'repeatable read'")
    with pytest.raises(pg.RaiseException, match="read committed"):
        claim(sweeper, render)


def test_a_save_by_update_is_guarded(application: Application, sweeper: Connection, saver: Connection) -> None:
    render = application.render()
    saver.execute("insert into user_assets (user_id, asset_type) values (gen_random_uuid(), 'uploaded')")
    saver.commit()
    claim(sweeper, render)
    with pytest.raises(pg.ForeignKeyViolation):
        saver.execute("update user_assets set metadata = %s", (json.dumps({"render_job_id": str(render.job_id)}),))


def test_a_bulk_save_is_refused_as_a_whole(application: Application, sweeper: Connection, saver: Connection) -> None:
    renders = application.render_many(3)
    claim(sweeper, renders[1])
    with pytest.raises(pg.ForeignKeyViolation):
        application.save_many(renders)


def test_other_changes_to_an_asset_are_not_guarded(
    application: Application, sweeper: Connection, saver: Connection
) -> None:
    render = application.render()
    asset = application.save(render)
    saver.execute(
        "update user_assets set title = 'mine', metadata = metadata || '{\"liked\": true}' where id = %s", (asset,)
    )
    saver.commit()
    assert claim(sweeper, render) == {render.job_id: "saved"}


SPELLINGS: dict[str, Callable[[UUID], str]] = {
    "upper case": lambda job: str(job).upper(),
    "braces": lambda job: f"{{{job}}}",
    "no hyphens": lambda job: job.hex,
    "a urn": lambda job: job.urn,
    "white space": lambda job: f"  {job}\n",
    "a prefix": lambda job: f"job:{job}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_any_spelling_of_a_job_id_saves_it(
    application: Application, sweeper: Connection, saver: Connection, spelling: str
) -> None:
    render = application.render()
    save(saver, SPELLINGS[spelling](render.job_id))
    saver.commit()
    assert claim(sweeper, render) == {render.job_id: "saved"}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_any_spelling_of_a_claimed_job_is_refused(
    application: Application, sweeper: Connection, saver: Connection, spelling: str
) -> None:
    render = application.render()
    claim(sweeper, render)
    with pytest.raises(pg.ForeignKeyViolation):
        save(saver, SPELLINGS[spelling](render.job_id))


def test_a_list_of_jobs_saves_each(application: Application, sweeper: Connection, saver: Connection) -> None:
    first, second = application.render_many(2)
    saver.execute(
        "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'collage', %s)",
        (json.dumps({"render_job_id": [str(first.job_id), {"also": str(second.job_id)}]}),),
    )
    saver.commit()
    assert set(claim(sweeper, first, second).values()) == {"saved"}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        [],
        "text",
        7,
        None,
        {"render_job_id": None},
        {"render_job_id": 7},
        {"render_job_id": "no job"},
        {"render_job_id": "z" * 100_000},
        {"render_job_id": "0b5e7c1a-9d7e-4c39-8f5c-1d2f3a4b5c6d"},
        {"render_job_id": [[[{}]]]},
    ],
    ids=repr,
)
def test_metadata_that_names_no_job_passes(saver: Connection, metadata: object) -> None:
    saver.execute(
        "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'x', %s)",
        (json.dumps(metadata),),
    )


def test_a_job_that_shares_its_file_with_a_claimed_one_cannot_be_saved(
    application: Application, sweeper: Connection, saver: Connection
) -> None:
    render = application.render()
    claim(sweeper, render)
    copy = application.add_job(output_url=application.link(render.bucket, render.name, Link.PUBLIC))
    with pytest.raises(pg.ForeignKeyViolation):
        save(saver, copy)


def test_a_claim_passes_over_a_file_that_a_new_job_is_just_about_to_share(
    application: Application, sweeper: Connection, saver: Connection
) -> None:
    """The new job and its save are in one transaction: nobody can see them, but its lock on the old job can be felt."""
    render = application.render()
    saver.execute(
        "with copy as (insert into render_jobs (user_id, status, output_url) "
        "select user_id, status, output_url from render_jobs where id = %s returning id) "
        "insert into user_assets (user_id, asset_type, metadata) "
        "select gen_random_uuid(), 'generated_saved', jsonb_build_object('render_job_id', id) from copy",
        (render.job_id,),
    )
    assert claim(sweeper, render) == {render.job_id: "locked"}
    saver.commit()
    assert claim(sweeper, render) == {render.job_id: "shared_with_kept_job"}


def test_a_saved_job_cannot_be_moved_to_a_file_that_is_claimed(
    application: Application, sweeper: Connection, saver: Connection
) -> None:
    saved, orphan = application.render(), application.render()
    application.save(saved)
    claim(sweeper, orphan)
    with pytest.raises(pg.ForeignKeyViolation, match="is being removed"):
        saver.execute(
            "update render_jobs set output_url = (select output_url from render_jobs where id = %s) where id = %s",
            (orphan.job_id, saved.job_id),
        )


def give_back(sweeper: Connection, render: Render, run: UUID) -> int:
    return len(sweeper.execute("select storage_cleanup.give_back(%s, %s)", (run, [render.job_id])).fetchall())


def test_a_claim_that_is_given_back_can_be_saved_again(application: Application, sweeper: Connection) -> None:
    render, run = application.render(), uuid4()
    claim(sweeper, render, run=run)
    assert give_back(sweeper, render, run) == 1
    application.save(render)


def test_a_run_gives_back_no_claim_of_another(application: Application, sweeper: Connection) -> None:
    render = application.render()
    claim(sweeper, render)
    assert give_back(sweeper, render, uuid4()) == 0
    with pytest.raises(pg.ForeignKeyViolation):
        application.save(render)


def test_a_run_gives_back_no_claim_that_storage_was_asked_for(application: Application, sweeper: Connection) -> None:
    render, run = application.render(), uuid4()
    claim(sweeper, render, run=run)
    sweeper.execute("select storage_cleanup.settle(%s, %s, 'no answer in time', true)", (run, [render.job_id]))
    assert give_back(sweeper, render, run) == 0
    with pytest.raises(pg.ForeignKeyViolation):
        application.save(render)


def test_a_job_that_is_gone_cannot_be_saved(application: Application, sweeper: Connection, servers: Servers) -> None:
    render = application.render()
    claim(sweeper, render)
    servers.execute("update storage_cleanup.deletion set state = 'done'")
    servers.execute("delete from render_jobs")
    with pytest.raises(pg.ForeignKeyViolation):
        application.save(render)


@pytest.mark.parametrize(
    "sabotage",
    [
        "drop trigger storage_cleanup_asset_inserted on user_assets",
        "drop trigger storage_cleanup_asset_truncated on user_assets",
        "alter table user_assets disable trigger storage_cleanup_asset_updated",
        "alter table user_assets enable replica trigger storage_cleanup_asset_deleted",
        "alter table user_assets enable trigger storage_cleanup_asset_applied",
        "alter table render_jobs disable trigger storage_cleanup_job_updated",
        "drop trigger storage_cleanup_job_deleted on render_jobs",
        "create or replace trigger storage_cleanup_job_inserted after insert on render_jobs "
        "referencing new table as new_rows for each statement when (false) "
        "execute function storage_cleanup.jobs_written()",
        "drop index storage_cleanup_render_job_id",
    ],
)
def test_without_its_guard_nothing_is_claimed(
    application: Application, sweeper: Connection, servers: Servers, sabotage: str
) -> None:
    render = application.render()
    servers.execute(sabotage)
    with pytest.raises(pg.ObjectNotInPrerequisiteState, match=r"install\.sql"):
        claim(sweeper, render)


@pytest.mark.parametrize("age", ["-1 day", "0", "59 seconds", None])
@pytest.mark.parametrize(
    "call",
    [
        "claim(gen_random_uuid(), '{}', '{}', %s, false, null)",
        "claim_fileless(gen_random_uuid(), '{}', %s, false, null)",
        "due(gen_random_uuid(), true, %s, '-infinity', gen_random_uuid(), 1, false, null)",
        "due(gen_random_uuid(), true, %s, '-infinity', gen_random_uuid(), 1, false, gen_random_uuid())",
    ],
    ids=lambda call: call.partition("(")[0],
)
@pytest.mark.parametrize("role", ["storage_cleanup_worker", "postgres"])
def test_nobody_can_ask_for_less_than_a_minute(servers: Servers, role: str, call: str, age: str | None) -> None:
    with servers.database.connect(role) as caller, pytest.raises(pg.InvalidParameterValue, match="max_age"):
        caller.execute(f"select * from storage_cleanup.{call}".encode(), (age,))


def test_the_database_counts_the_reference_set_itself(
    application: Application, sweeper: Connection, cleanup: Cleanup
) -> None:
    """A run that isn't found good leaves what the next is judged by as it was, whether it ends or dies."""
    renders = application.render_many(4)
    application.save_many(renders[:3])
    cleanup()
    application.save(renders[0])

    def judged(run: UUID) -> tuple[Any, ...] | None:
        sweeper.execute("select storage_cleanup.start_run(%s, 'manual', false, '{}', '{}', null)", (run,))
        return sweeper.execute("select saved, before from storage_cleanup.judge_saved(%s)", (run,)).fetchone()

    first, second, third = uuid4(), uuid4(), uuid4()
    assert judged(first) == (4, 3)
    assert judged(second) == (4, 3)
    sweeper.execute("select storage_cleanup.finish_run(%s, 'failed', '{}', false)", (first,))
    sweeper.execute("select storage_cleanup.finish_run(%s, 'succeeded', '{}', true)", (second,))
    assert judged(third) == (4, 4)
