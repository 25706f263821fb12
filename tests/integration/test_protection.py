"""What is destroyed is an object, so objects are protected: those that are needed, somebody else's, or too fresh."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg

from local.application import TWO_HOURS, Application, Link, Render
from local.storage_emulator.faults import Fault
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.errors import ObjectStoreError
from storage_cleanup.storage.object_store import ObjectStore, Removal
from storage_cleanup.storage.paths import OWN_BUCKET
from tests.conftest import Servers
from tests.integration.conftest import Cleanup
from tests.integration.direct import let_requests_end

pytestmark = pytest.mark.usefixtures("earlier_run")
Connection = psycopg.Connection[Any]
Configure = Callable[..., None]


@pytest.fixture
def owner(servers: Servers) -> Iterator[Connection]:
    """The owner of the application's tables."""
    with servers.database.connect() as connection:
        yield connection


def kept(answer: dict[str, Any]) -> dict[str, int]:
    """Return why files were kept, and how many."""
    return dict(answer["phases"]["storage_files"]["reasons"]["kept"])


def another_orphan(application: Application, render: Render) -> UUID:
    """Add a job of the same user that nobody saved and that has the same URL: a cached result."""
    return application.add_job(output_url=application.link(render.bucket, render.name, Link.PUBLIC))


# -- what was saved stays, whatever becomes of its job ---------------------------------------------------------------


@pytest.mark.parametrize(
    "housekeeping",
    [
        "delete from render_jobs where id = %s",
        "update render_jobs set output_url = null where id = %s",
        "update render_jobs set output_url = '/object/sign/images/elsewhere.png?token=t' where id = %s",
    ],
    ids=["its row is deleted", "its URL is taken away", "its URL is changed"],
)
def test_a_saved_file_outlives_its_job(
    application: Application, cleanup: Cleanup, owner: Connection, housekeeping: str
) -> None:
    render = application.render()
    application.save(render)
    owner.execute(housekeeping.encode(), (render.job_id,))
    another_orphan(application, render)
    assert kept(cleanup())["asset_points_at_file"] == 1
    assert application.download(render) == render.content


def test_a_job_that_was_saved_before_it_had_a_url_keeps_the_file_that_it_gets(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    render = application.render()
    early = application.add_job(output_url=None, status="running")
    application.save(Render(early, render.user_id, "", "", b""))
    url = application.link(render.bucket, render.name, Link.PUBLIC)
    owner.execute("update render_jobs set status = 'completed', output_url = %s where id = %s", (url, early))
    owner.execute("delete from render_jobs where id = %s", (early,))
    assert kept(cleanup())["asset_points_at_file"] == 1
    assert application.download(render) == render.content


def test_a_file_goes_once_no_asset_needs_it_and_its_user_has_had_time_to_take_that_back(
    application: Application, cleanup: Cleanup, configure: Configure, owner: Connection
) -> None:
    configure(limits__max_saved_drop_percent="100", production__unsaved_grace_minutes="60")
    application.save(application.render())
    render = application.render()
    asset = application.save(render)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 0
    application.unsave(asset)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 0
    owner.execute("update storage_cleanup.candidate set unsaved_at = unsaved_at - interval '61 minutes'")
    answer = cleanup()
    assert (answer["phases"]["storage_files"]["deleted"], kept(answer)) == (1, {})
    assert (render.bucket, render.name) not in application.files()


# -- whatever an asset says ------------------------------------------------------------------------------------------

PLACES: dict[str, Callable[[Application, Render], Any]] = {
    "a URL": lambda app, render: app.link(render.bucket, render.name, Link.SIGNED),
    "a URL of another host": lambda _, render: f"https://cdn.example.com/storage/v1/object/public/images/{render.name}",
    "a URL with parameters": lambda app, render: app.link(render.bucket, render.name, Link.PUBLIC) + "?width=100",
    "a relative URL": lambda app, render: app.link(render.bucket, render.name, Link.SIGNED_RELATIVE),
    "bucket and name": lambda _, render: f"{render.bucket}/{render.name}",
    "the name": lambda _, render: render.name,
    "a slash and the name": lambda _, render: f"/{render.name}",
    "a space and the name": lambda _, render: f" {render.name}",
}


@pytest.mark.parametrize("column", ["image text", "thumbnail varchar", "previews text[]", "extra jsonb"])
@pytest.mark.parametrize("said", PLACES)
def test_a_column_that_came_after_the_installation_keeps_the_file_that_it_names(
    application: Application, cleanup: Cleanup, owner: Connection, column: str, said: str
) -> None:
    name, _, kind = column.partition(" ")
    owner.execute(f"alter table user_assets add column {name} {kind}".encode())
    render = application.render()
    value = PLACES[said](application, render)
    stored = {"text[]": ["nothing", value], "jsonb": json.dumps({"deep": [{"er": value}]})}.get(kind, value)
    owner.execute(
        f"insert into user_assets (user_id, asset_type, {name}) values (%s, 'poster', %s)".encode(),
        (render.user_id, stored),
    )
    assert kept(cleanup()) == {"asset_points_at_file": 1}
    assert application.download(render) == render.content


@pytest.mark.parametrize(
    "name",
    ["s3/a.png", "object/public/b.png", "storage/v1/c.png", "render/image/public/d.png", "what?.png", "e.png"],
)
def test_a_raw_name_in_the_metadata_is_understood_whatever_it_looks_like(
    application: Application, cleanup: Cleanup, name: str
) -> None:
    render = application.render(name=name, link=Link.SIGNED)
    application.save(render, metadata={"path": name})
    assert kept(cleanup()) == {"asset_points_at_file": 1}
    assert application.download(render) == render.content


@pytest.mark.parametrize("key", ["renderJobId", "job", "source"])
def test_a_job_that_is_named_under_any_key_is_saved(application: Application, cleanup: Cleanup, key: str) -> None:
    render = application.render()
    application.save(render, metadata={key: str(render.job_id).upper()})
    assert kept(cleanup()) == {"saved": 1}
    assert application.download(render) == render.content


def encoded(text: str, times: int = 1) -> str:
    """Percent-encode a text, as often as it is asked."""
    return encoded(quote(text, safe=""), times - 1) if times else text


SAYINGS: dict[str, Callable[[str, Render], Any]] = {
    "a key of JSON": lambda url, render: {f"{render.bucket}/{render.name}": {"width": 3}},
    "JSON within a text": lambda url, render: {"raw": json.dumps({"url": url})},
    "JSON that escapes slashes": lambda url, render: {"raw": json.dumps({"url": url}).replace("/", "\\/")},
    "an image optimizer's URL": lambda url, render: {"src": f"/_next/image?url={encoded(url)}&w=640&q=75"},
    "an encoded URL": lambda url, render: {"src": encoded(url)},
    "a name that was encoded twice": lambda url, render: {"path": encoded(f"images/{render.name}", 2)},
    "a URL within a proxy's": lambda url, render: {"src": f"https://proxy.example.com/fit/300/{url}"},
    "a URL below another path": lambda url, render: {"src": f"https://cdn.example.com/files/images/{render.name}"},
    "a URL of an API below a path": lambda url, render: {
        "src": f"https://example.com/api/storage/v1/object/public/images/{render.name}"
    },
    "a URL of the S3 protocol": lambda url, render: {
        "src": f"https://x.supabase.co/storage/v1/s3/images/{render.name}"
    },
    "a URL with a long token": lambda url, render: {"src": f"{url}?download=&token={'ab12' * 1000}"},
    "a query that writes blanks as +": lambda url, render: {"src": f"https://cdn.example.com/?{urlencode({'u': url})}"},
    "a scheme in capitals": lambda url, render: {"src": url.replace("http", "HTTP", 1)},
    "a scheme of its own": lambda url, render: {"path": f"s3://images/{render.name}"},
    "Markdown": lambda url, render: {"text": f"![a scene]({url})"},
    "Markdown of 100 kB": lambda url, render: {"text": "a word " * 15_000 + f"![a scene]({url} 'of mine')"},
    "CSS": lambda url, render: {"style": f"background: url('{url}') no-repeat"},
    "HTML": lambda url, render: {"html": f'<img src="{url}"/>'},
    "a list in a text": lambda url, render: {"urls": f"{url},{url}"},
    "a sentence": lambda url, render: {"text": f"You find it in images/{render.name}."},
    "two slashes": lambda url, render: {"path": f"images//{render.name}"},
    "two slashes within the name": lambda url, render: {"path": render.name.replace("/", "//")},
    "a folder that is this one": lambda url, render: {"path": f"./images/{render.name}"},
    "backslashes": lambda url, render: {"path": f"images/{render.name}".replace("/", "\\")},
    "a blank that can't be seen": lambda url, render: {"path": url + "\u00a0"},
    "a name in its user's folder": lambda url, render: {"file": render.name.rpartition("/")[2]},
}


@pytest.mark.parametrize("saying", SAYINGS)
def test_an_asset_keeps_the_file_that_it_names_in_its_own_way(
    application: Application, cleanup: Cleanup, saying: str
) -> None:
    render = application.render(name=f"{application.user}/a scene_{uuid4()}.png" if "blanks" in saying else None)
    url = application.link(render.bucket, render.name, Link.PUBLIC).replace("%20", " ")
    application.save(render, metadata=SAYINGS[saying](url, render))
    assert kept(cleanup()) == {"asset_points_at_file": 1}
    assert application.download(render) == render.content


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (" ".join(f"a/{number}" for number in range(300)), {"asset_unread": 1}),
        ("a/word " * 50_000, {"asset_unread": 1}),
        ("data:image/png;base64," + "A/bc" * 100_000, {}),
    ],
    ids=["300 paths", "350 kB", "the bytes of an image"],
)
def test_a_text_that_says_more_than_is_read_keeps_all_files_of_its_user(
    application: Application, cleanup: Cleanup, text: str, reasons: dict[str, int]
) -> None:
    application.save(application.render(), metadata={"text": text})
    assert kept(cleanup()) == reasons


def test_an_asset_that_says_more_than_is_read_keeps_all_files_of_its_user(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    mine, theirs = application.render(), application.render(user=uuid4())
    names = [f"page/{number}.png" for number in range(1500)] + [mine.name]
    application.save(mine, metadata={"pages": names})
    assert kept(cleanup()) == {"asset_unread": 1}
    assert application.files() == {(mine.bucket, mine.name)}
    assert theirs.job_id not in application.jobs()


# -- whose file it is ------------------------------------------------------------------------------------------------


def test_a_job_cannot_take_the_file_of_another_user(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    """Row-level security lets everybody insert jobs of their own, with whatever URL and date."""
    application.upload("images", "b/private.png", b"B's own", age=TWO_HOURS, user=uuid4())
    url = application.link("images", "b/private.png", Link.PUBLIC)
    application.add_job(output_url=url, user=uuid4())
    assert kept(cleanup()) == {"not_the_owners": 1}
    assert application.read("images", "b/private.png") == b"B's own"


def test_a_file_that_the_service_uploaded_belongs_to_whose_folder_it_lies_in(
    application: Application, cleanup: Cleanup
) -> None:
    theirs, mine = application.render_many(1)[0], application.render_many(1)[0]
    application.add_job(output_url=application.link(theirs.bucket, theirs.name, Link.PUBLIC), user=mine.user_id)
    answer = cleanup()
    assert kept(answer) == {"not_the_owners": 1}
    assert answer["phases"]["storage_files"]["deleted"] == 2


def test_nobody_can_pin_the_orphan_of_another_user(application: Application, cleanup: Cleanup) -> None:
    render = application.render()
    application.add_job(output_url=application.link(render.bucket, render.name, Link.PUBLIC), user=uuid4())
    answer = cleanup()
    assert answer["phases"]["storage_files"]["deleted"] == 1
    assert kept(answer) == {"not_the_owners": 1}


def test_ownership_can_be_switched_off(application: Application, cleanup: Cleanup, configure: Configure) -> None:
    configure(ownership="off")
    application.upload("images", "shared.png", b"x", age=TWO_HOURS, user=uuid4())
    application.add_job(output_url=application.link("images", "shared.png", Link.PUBLIC), user=uuid4())
    assert cleanup()["phases"]["storage_files"]["deleted"] == 1


# -- which object it is ----------------------------------------------------------------------------------------------


def test_a_url_with_an_unescaped_question_mark_deletes_neither_object(
    application: Application, cleanup: Cleanup
) -> None:
    short = application.render(name="u/a")
    application.upload("images", "u/a?b.png", b"the one that is meant", age=TWO_HOURS)
    application.save(short)
    url = application.link("images", "u/a", Link.PUBLIC)
    application.add_job(output_url=f"{url}?b.png")
    assert kept(cleanup())["unknown_query"] == 1
    assert application.files() == {("images", "u/a"), ("images", "u/a?b.png")}


def test_a_query_that_is_a_name_as_well_deletes_neither_object(application: Application, cleanup: Cleanup) -> None:
    application.upload("images", "u/a", b"one", age=TWO_HOURS)
    application.upload("images", "u/a?v=2", b"the other", age=TWO_HOURS)
    application.add_job(output_url=application.link("images", "u/a", Link.PUBLIC) + "?v=2")
    assert kept(cleanup()) == {"ambiguous_url": 1}
    assert application.files() == {("images", "u/a"), ("images", "u/a?v=2")}


# -- nothing gets past the triggers ----------------------------------------------------------------------------------


def test_a_save_that_a_later_trigger_makes_is_refused_like_any_other(
    application: Application, cleanup: Cleanup, owner: Connection, servers: Servers
) -> None:
    """An application's own BEFORE trigger writes the job's id after ours, by name, would have looked."""
    owner.execute(
        "create function zz() returns trigger language plpgsql as $$ begin "
        "new.metadata := jsonb_build_object('render_job_id', new.title); return new; end $$"
    )
    owner.execute("create trigger zzz before insert or update on user_assets for each row execute function zz()")
    render = application.render()
    owner.execute(
        "insert into user_assets (user_id, asset_type, title) values (%s, 'x', %s)",
        (render.user_id, str(render.job_id)),
    )
    assert kept(cleanup()) == {"saved": 1}


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_a_save_is_noted_in_a_session_of_any_replication_role(
    application: Application, cleanup: Cleanup, servers: Servers, role: str
) -> None:
    render = application.render()
    with servers.database.connect("supabase_admin") as applier:
        applier.execute(f"set session_replication_role = {role}")
        applier.execute(
            "insert into user_assets (user_id, asset_type, metadata) values (%s, 'x', %s)",
            (render.user_id, json.dumps({"url": f"images/{render.name}"})),
        )
    assert kept(cleanup()) == {"asset_points_at_file": 1}


def test_what_was_written_while_a_trigger_was_off_is_found_before_anything_is_claimed(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    render = application.render()
    owner.execute("alter table user_assets disable trigger storage_cleanup_asset_inserted")
    application.save(render, metadata={"url": f"images/{render.name}"})
    assert cleanup()["status"] == "failed"
    owner.execute("alter table user_assets enable trigger storage_cleanup_asset_inserted")
    answer = cleanup()
    assert (answer["status"], kept(answer)) == ("succeeded", {"asset_points_at_file": 1})


def test_truncated_assets_need_nothing_any_more(
    application: Application, cleanup: Cleanup, configure: Configure, owner: Connection
) -> None:
    configure(limits__max_saved_drop_percent="100", production__unsaved_grace_minutes="0")
    application.save(application.render())
    owner.execute("truncate user_assets")
    assert owner.execute("select count(*) from storage_cleanup.reference").fetchone() == (0,)


def test_what_is_noted_is_not_all_that_is_looked_at(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    render = application.render()
    application.save(render)
    owner.execute("delete from storage_cleanup.mention where id = %s", (render.job_id,))
    owner.execute("delete from storage_cleanup.reference")
    assert kept(cleanup()) == {"saved": 1}


# -- a claim against whoever joins its object ------------------------------------------------------------------------


def claimed(servers: Servers, render: Render) -> None:
    with servers.database.connect() as sweeper:
        sweeper.execute("select storage_cleanup.compare_if_due()")
        outcome = sweeper.execute(
            "select outcome from storage_cleanup.claim(gen_random_uuid(), %s, %s, '1 hour', false, null)",
            ([render.job_id], [f"{render.bucket}/{render.name}"]),
        ).fetchone()
    assert outcome == ("claimed",)


@pytest.mark.parametrize("gone", ["deleted", "moved"])
def test_a_saved_job_cannot_move_to_a_claimed_object_whose_own_job_has_gone(
    application: Application, servers: Servers, owner: Connection, gone: str
) -> None:
    orphan, saved = application.render(), application.render()
    application.save(saved)
    claimed(servers, orphan)
    if gone == "deleted":
        owner.execute("delete from render_jobs where id = %s", (orphan.job_id,))
    else:
        owner.execute("update render_jobs set output_url = null where id = %s", (orphan.job_id,))
    with pytest.raises(pg.ForeignKeyViolation):
        owner.execute(
            "update render_jobs set output_url = %s where id = %s",
            (application.link(orphan.bucket, orphan.name, Link.PUBLIC), saved.job_id),
        )


def test_a_job_whose_asset_came_first_cannot_take_a_claimed_object(
    application: Application, servers: Servers, owner: Connection
) -> None:
    orphan, job = application.render(), uuid4()
    application.save(Render(job, orphan.user_id, "", "", b""))
    claimed(servers, orphan)
    with pytest.raises(pg.ForeignKeyViolation):
        owner.execute(
            "insert into render_jobs (id, user_id, status, output_url) values (%s, %s, 'completed', %s)",
            (job, orphan.user_id, application.link(orphan.bucket, orphan.name, Link.PUBLIC)),
        )


def test_an_asset_cannot_name_a_claimed_object_in_any_column(
    application: Application, servers: Servers, owner: Connection
) -> None:
    owner.execute("alter table user_assets add column poster text")
    orphan = application.render()
    claimed(servers, orphan)
    with pytest.raises(pg.ForeignKeyViolation):
        owner.execute(
            "insert into user_assets (user_id, asset_type, poster) values (%s, 'x', %s)",
            (orphan.user_id, f"images/{orphan.name}"),
        )


def test_a_claim_passes_over_an_object_that_an_asset_is_about_to_name(
    application: Application, servers: Servers, cleanup: Cleanup
) -> None:
    render = application.render()
    with servers.database.connect(autocommit=False) as saver:
        saver.execute(
            "insert into user_assets (user_id, asset_type, metadata) values (%s, 'x', %s)",
            (render.user_id, json.dumps({"path": f"images/{render.name}"})),
        )
        assert kept(cleanup()) == {"locked": 1}


def test_a_placeholder_that_a_thousand_jobs_share_is_never_removed(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    render = application.render(name="placeholder.png")
    owner.execute(
        "insert into render_jobs (user_id, status, output_url) select user_id, 'completed', output_url "
        "from render_jobs, generate_series(1, 1001)"
    )
    assert kept(cleanup()) == {"shared_by_many": 1}
    assert application.download(render) == render.content


# -- what hangs on a job ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["cascade", "set null", "no action"])
def test_a_job_that_other_rows_refer_to_stays_with_its_file(
    application: Application, cleanup: Cleanup, owner: Connection, action: str
) -> None:
    render = application.render()
    owner.execute(f"create table favourites (job uuid references render_jobs on delete {action})".encode())
    owner.execute("insert into favourites values (%s)", (render.job_id,))
    assert kept(cleanup()) == {"has_dependents": 1}
    assert application.download(render) == render.content
    assert application.jobs() == {render.job_id}


def test_a_row_that_others_have_come_to_refer_to_since_its_file_went_stays(
    application: Application, cleanup: Cleanup, configure: Configure, owner: Connection
) -> None:
    configure(phases__render_jobs="false")
    render = application.render()
    owner.execute("create table favourites (job uuid references render_jobs on delete cascade)")
    cleanup()
    owner.execute("insert into favourites values (%s)", (render.job_id,))
    configure()
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"foreign_key": 1}
    assert application.jobs() == {render.job_id}
    assert owner.execute("select count(*) from favourites").fetchone() == (1,)


def test_dependents_can_be_given_up(
    application: Application, cleanup: Cleanup, configure: Configure, owner: Connection
) -> None:
    configure(dependents="delete")
    render = application.render()
    owner.execute("create table favourites (job uuid references render_jobs on delete cascade)")
    owner.execute("insert into favourites values (%s)", (render.job_id,))
    cleanup()
    assert application.jobs() == application.files() == set()
    assert owner.execute("select count(*) from favourites").fetchone() == (0,)


# -- how old it is ---------------------------------------------------------------------------------------------------


def test_a_render_that_is_approved_late_can_be_saved_for_its_whole_age(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    render = application.render(status="review")
    owner.execute("update render_jobs set status = 'completed' where id = %s", (render.job_id,))
    assert cleanup()["phases"]["storage_files"]["deleted"] == 0
    assert application.download(render) == render.content


# -- the same object to the end --------------------------------------------------------------------------------------


def abandon(servers: Servers, *renders: Render) -> None:
    """Claim as a run that has died long since."""
    for render in renders:
        claimed(servers, render)
    let_requests_end(servers.database)


@pytest.mark.parametrize("again", ["its file", "its status"])
def test_what_is_rendered_again_after_a_crash_stays(
    application: Application, cleanup: Cleanup, owner: Connection, servers: Servers, again: str
) -> None:
    render = application.render()
    abandon(servers, render)
    if again == "its file":
        application.upload(render.bucket, render.name, b"anew")
    else:
        owner.execute("update render_jobs set status = 'running' where id = %s", (render.job_id,))
    answer = cleanup()
    assert kept(answer)["rendered_again"] == 1
    assert (render.bucket, render.name) in application.files()
    assert application.jobs() == {render.job_id}


def test_what_is_uploaded_again_between_removal_and_confirmation_stays_and_is_not_said_to_be_deleted(
    application: Application, cleanup: Cleanup, app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = application.render()

    class Overtaken(ObjectStore):
        def remove(self, bucket: str, names: Sequence[str], **how: Any) -> Removal:
            removal = super().remove(bucket, names, **how)
            if bucket == render.bucket:
                application.upload(bucket, render.name, b"anew")
            return removal

    monkeypatch.setattr(app, "ObjectStore", Overtaken)
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["skipped"] == {"rendered_again": 1}
    assert answer["phases"]["render_jobs"]["deleted"] == 0
    assert application.read(render.bucket, render.name) == b"anew"
    assert application.jobs() == {render.job_id}


def test_a_run_that_was_asleep_past_its_lease_asks_for_nothing(
    app: ModuleType, application: Application, cleanup: Cleanup, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may have taken it for dead, finished its claims, and the names may be in use again."""
    renders = application.render_many(3)
    with monkeypatch.context() as patched:
        patched.setattr(app, "run_cycle", partial(run_cycle, lease_seconds=-1))
        answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["skipped"]["given_back"] >= 3
    assert len(application.files()) == 3
    application.save_many(renders)
    assert kept(cleanup()) == {"saved": 3}


def test_a_file_that_was_removed_is_said_so_when_its_job_was_rendered_again_meanwhile(
    app: ModuleType, application: Application, cleanup: Cleanup, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = application.render()

    class Overtaken(ObjectStore):
        def remove(self, bucket: str, names: Sequence[str], **how: Any) -> Removal:
            if bucket == render.bucket:
                owner.execute("update render_jobs set status = 'running' where id = %s", (render.job_id,))
            return super().remove(bucket, names, **how)

    monkeypatch.setattr(app, "ObjectStore", Overtaken)
    answer = cleanup()
    assert answer["phases"]["storage_files"]["deleted"] == 1
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"rendered_again": 1}
    assert application.jobs() == {render.job_id}


# -- a request that got no answer -------------------------------------------------------------------------------------


class Unanswered(ObjectStore):
    """Storage is busy: it answers nobody, and removes what it was asked for later."""

    asked: tuple[str, Sequence[str]] | None = None

    def remove(self, bucket: str, names: Sequence[str], **how: Any) -> Removal:
        if bucket == OWN_BUCKET:
            return super().remove(bucket, names, **how)
        Unanswered.asked = bucket, names
        error = ObjectStoreError("no answer in time", code="timeout")
        return Removal(failed=dict.fromkeys(names, error), unanswered=True, is_open=True)


def test_a_name_cannot_be_saved_again_while_a_request_for_it_may_be_at_work(
    app: ModuleType, application: Application, cleanup: Cleanup, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request gets no answer, the job is rendered again, and its user saves it before Storage goes on."""
    render = application.render()
    monkeypatch.setattr(app, "ObjectStore", Unanswered)
    cleanup()
    application.upload(render.bucket, render.name, b"anew")
    owner.execute("update render_jobs set progress = 1 where id = %s", (render.job_id,))
    cleanup()  # another cycle doesn't release it, either
    with pytest.raises(pg.ForeignKeyViolation, match="can no longer be saved"):
        application.save(render)


def test_what_was_rendered_again_before_the_request_has_ended_cannot_be_saved(
    app: ModuleType, application: Application, cleanup: Cleanup, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = application.render()

    class Overtaken(Unanswered):
        def remove(self, bucket: str, names: Sequence[str], **how: Any) -> Removal:
            if bucket == render.bucket:
                application.upload(render.bucket, render.name, b"anew")
            return super().remove(bucket, names, **how)

    monkeypatch.setattr(app, "ObjectStore", Overtaken)
    assert cleanup()["phases"]["storage_files"]["reasons"]["skipped"] == {"rendered_again": 1}
    with pytest.raises(pg.ForeignKeyViolation, match="can no longer be saved"):
        application.save(render)


def test_a_name_can_be_saved_again_once_no_request_for_it_can_be_at_work(
    app: ModuleType, application: Application, cleanup: Cleanup, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = application.render()
    with monkeypatch.context() as busy:
        busy.setattr(app, "ObjectStore", Unanswered)
        cleanup()
    application.upload(render.bucket, render.name, b"anew")
    assert kept(cleanup()) == {"claimed_by_another_run": 1}
    let_requests_end(servers.database)
    assert kept(cleanup())["rendered_again"] == 1
    application.save(render)
    assert application.read(render.bucket, render.name) == b"anew"


@pytest.mark.parametrize("state", ["claimed", "file_deleted"])
def test_what_a_run_has_claimed_that_died_a_moment_ago_is_left_alone(
    application: Application, cleanup: Cleanup, servers: Servers, state: str
) -> None:
    """It may have asked Storage in its last moment."""
    render = application.render()
    claimed(servers, render)
    servers.execute("update storage_cleanup.deletion set state = %s", state)
    answer = cleanup()
    phase = "storage_files" if state == "claimed" else "render_jobs"
    assert answer["phases"][phase]["reasons"]["kept"] == {"claimed_by_another_run": 1}
    assert application.jobs() == {render.job_id}


def test_a_request_is_not_sent_again_once_the_lease_is_over(
    app: ModuleType, application: Application, cleanup: Cleanup, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage pushes back for longer than the claim may be acted on."""
    application.render()
    servers.storage.inject({Fault.SLOW_DOWN: 1}, operations=["remove"])
    monkeypatch.setattr(app, "run_cycle", partial(run_cycle, lease_seconds=0.5))
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["failed"] == {"storage_lease_over": 1}
