"""Writes ``install.sql``, for the SQL editor, from the files of this room: ``python -m database.bundle``."""

from pathlib import Path

ROOM = Path(__file__).parent
INSTALL = ROOM / "install.sql"

_HEAD = """\
-- Storage Cleanup: ledger, guard and worker role.
--
-- Run the whole file as `postgres`, in Supabase's SQL editor or with psql. Running it again changes nothing.
-- With psql: psql -v ON_ERROR_STOP=1 "$ADMIN_DATABASE_URL" -f database/install.sql, so that an error is the last line.
-- It needs public.render_jobs, public.user_assets and Supabase's storage schema; uninstall.sql takes it all back.
-- Building the indexes blocks writes to their tables meanwhile: choose a quiet minute.
--
-- Made by `make database/install.sql` from the files beside it. Change those.

begin;
set local lock_timeout = '10s';
set local client_min_messages = warning;
"""
_TAIL = "\ncommit;\n"

FUNCTIONS = tuple(
    f"functions/{subject}.sql"
    for subject in (
        "values",
        "guard",
        "candidates",
        "references",
        "preflight",
        "runs",
        "claim",
        "confirm",
        "rows",
        "health",
    )
)
"""In an order in which each finds what it calls."""


def parts() -> list[Path]:
    """Return the files in the order in which they run."""
    migrations = sorted((ROOM / "migrations").glob("*.sql"))
    before = [ROOM / "checks.sql", *migrations, ROOM / "functions_before.sql"]
    functions = [ROOM / name for name in FUNCTIONS]
    return [*before, functions[0], ROOM / "indexes.sql", *functions[1:], *map(ROOM.joinpath, _LAST)]


_LAST = ("triggers.sql", "worker.sql", "first_look.sql")


def bundle() -> str:
    """Return the text of ``install.sql``."""
    rule = "-- " + "-" * 111
    bodies = (f"\n{rule}\n-- {part.relative_to(ROOM).as_posix()}\n\n{part.read_text()}" for part in parts())
    return _HEAD + "".join(bodies) + _TAIL


if __name__ == "__main__":
    INSTALL.write_text(bundle())
