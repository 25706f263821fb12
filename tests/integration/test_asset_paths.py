"""A file is kept while an asset points at it by a path of its own, where the table has such a column."""

from pathlib import Path

import pytest
from psycopg import errors as pg

from local.application import Application
from tests.conftest import Servers
from tests.integration.conftest import Cleanup
from tests.integration.test_guard import claim

INSTALL = Path(__file__).resolve().parents[2] / "database" / "install.sql"


@pytest.fixture
def with_path_column(servers: Servers, earlier_run: None) -> Servers:
    servers.execute("alter table user_assets add column file_path text")
    servers.execute(INSTALL.read_bytes())
    return servers


SAVE = "insert into user_assets (user_id, asset_type, file_path) values (gen_random_uuid(), 'x', %s)"


@pytest.mark.parametrize("path", ["{name}", "{bucket}/{name}", "/storage/v1/object/public/{bucket}/{name}?x=1"])
def test_a_file_that_an_asset_points_at_stays(
    with_path_column: Servers, application: Application, cleanup: Cleanup, path: str
) -> None:
    render = application.render()
    with_path_column.execute(SAVE, path.format(name=render.name, bucket=render.bucket))
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"asset_points_at_file": 1}
    assert application.download(render) == render.content


def test_an_asset_cannot_point_at_a_file_that_is_claimed(with_path_column: Servers, application: Application) -> None:
    render = application.render()
    with with_path_column.database.connect() as owner:
        claim(owner, render)
        with pytest.raises(pg.ForeignKeyViolation):
            owner.execute(SAVE, (render.name,))


def test_a_claim_passes_over_a_file_that_an_asset_is_about_to_point_at(
    with_path_column: Servers, application: Application
) -> None:
    render = application.render()
    with with_path_column.database.connect() as sweeper, with_path_column.database.connect(autocommit=False) as saver:
        saver.execute(SAVE, (render.name,))
        assert claim(sweeper, render) == {render.job_id: "locked"}
