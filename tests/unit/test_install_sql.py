"""install.sql is what the files of the database room say."""

from database.bundle import INSTALL, Room


def test_install_sql_is_current() -> None:
    assert INSTALL.read_text() == Room().bundle(), "run `make database/install.sql`"
