"""What tests of the installation have in common."""

import subprocess
from pathlib import Path

from local.postgres import ROOT, Database

INSTALL, UNINSTALL = ROOT / "database" / "install.sql", ROOT / "database" / "uninstall.sql"


def run(database: Database, script: Path) -> None:
    """Run a script as the SQL editor does: the whole text in one request."""
    with database.connect() as owner:
        owner.execute(script.read_bytes())


def dump(database: Database, *options: str) -> str:
    """Return everything that is in the database, as SQL."""
    output = subprocess.run(
        [database.postgres.program("pg_dump"), "--restrict-key=same", database.url("supabase_admin"), *options],
        check=True,
        capture_output=True,
        text=True,
    )
    return output.stdout
