"""install.sql is what the files of the database room say."""

from database.bundle import INSTALL, bundle


def test_install_sql_is_current() -> None:
    assert INSTALL.read_text() == bundle(), "run `make database/install.sql`"
