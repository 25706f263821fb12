"""A candidate whose URL means no object of this project costs nothing, until what is in scope changes."""

from collections.abc import Callable
from uuid import UUID

import pytest

from local.application import TWO_HOURS, Application, Link, Render
from tests.conftest import Servers
from tests.integration.conftest import Cleanup

pytestmark = pytest.mark.usefixtures("earlier_run")


def elsewhere(application: Application) -> Render:
    """Render an output in a bucket that isn't listed."""
    application.create_bucket("drafts")
    return application.render(bucket="drafts")


@pytest.mark.parametrize("url", ["https://elsewhere.example.com/a.png", "ftp://x", "images", "drafts/a.png"])
def test_it_is_looked_at_once(application: Application, cleanup: Cleanup, servers: Servers, url: str) -> None:
    application.add_job(output_url=url)
    assert cleanup()["phases"]["storage_files"]["kept"] == 1
    servers.execute("update storage_cleanup.run set started_at = started_at - interval '2 days'")
    answer = cleanup()
    assert (answer["phases"]["storage_files"]["examined"], answer["remaining"]) == (0, 0)


def test_it_is_looked_at_again_when_the_scope_changes(
    application: Application, cleanup: Cleanup, configure: Callable[..., None]
) -> None:
    render = elsewhere(application)
    assert cleanup()["phases"]["storage_files"]["reasons"]["kept"] == {"unlisted_bucket": 1}
    configure(buckets="images,videos,drafts")
    assert cleanup()["phases"]["storage_files"]["deleted"] == 1
    assert render.job_id not in application.jobs()


def test_it_is_looked_at_again_when_its_url_changes(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    render = application.render()
    servers.execute("update render_jobs set output_url = 'https://elsewhere.example.com/' || output_url")
    application.age_jobs([render.job_id], TWO_HOURS)
    cleanup()
    servers.execute("update render_jobs set output_url = %s", application.link(render.bucket, render.name, Link.PUBLIC))
    application.age_jobs([render.job_id], TWO_HOURS)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 1


def test_a_dry_run_sets_nothing_aside(application: Application, cleanup: Cleanup) -> None:
    application.add_job(output_url="https://elsewhere.example.com/a.png")
    for _ in range(2):
        assert cleanup(dry_run=True)["phases"]["storage_files"]["kept"] == 1


def test_many_come_back_in_batches_and_are_counted_meanwhile(cleanup: Cleanup, servers: Servers) -> None:
    """A whole history may come into scope at once; no run takes on more than it can."""
    servers.execute(
        "insert into storage_cleanup.candidate (job_id, since, completed_at, has_file, out_of_scope) "
        "select gen_random_uuid(), 'infinity', now() - interval '2 hours', true, 1 from generate_series(1, 60000)"
    )
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"job_gone": 50000}
    assert answer["remaining"] == 10000
    assert cleanup()["remaining"] == 0


def test_one_that_somebody_is_writing_is_left_for_the_next_run(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    job: UUID = application.add_job(output_url="drafts/a.png")
    servers.execute("update storage_cleanup.candidate set since = 'infinity', out_of_scope = 1")
    with servers.database.connect(autocommit=False) as other:
        other.execute("select from storage_cleanup.candidate where job_id = %s for update", (job,))
        answer = cleanup()
    assert (answer["phases"]["storage_files"]["examined"], answer["remaining"]) == (0, 1)
