"""Tells what is installed and what is missing: ``python -m database.status``, with ADMIN_DATABASE_URL."""

import sys
from collections.abc import Iterator

import psycopg

from database.bundle import Room
from database.install import Connection, Installation, RefusedError, administrator, session

_ABOUT = "select format('%s as %s, PostgreSQL %s', current_database(), current_user, current_setting('server_version'))"
_STATE = """
select format('index %s', name), fault from storage_cleanup.index_state()
union all
select format('trigger %s', name), fault from storage_cleanup.trigger_state() where place <= 10
union all
select format('columns %s of %s', array_to_string(columns, ', '), of_table),
       (select string_agg(distinct fault, ', ') from storage_cleanup.trigger_state() as trigger
        where trigger.place > 10 and trigger.of_table = known.of_table)
from storage_cleanup.place as known
union all
select 'bucket storage-cleanup', case when not exists (select from storage.buckets where id = 'storage-cleanup')
                               then 'missing' end
union all
select 'first look', case when last_at is null then 'not done' end from storage_cleanup.comparison
union all
select format('preflight (%s)', code), sentence from storage_cleanup.distrust() where code not in ('guard', 'index')
"""


def status(url: str, room: Room | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield each part of the installation with what is wrong with it, or None."""
    with session(url) as connection, connection.transaction(force_rollback=True):
        yield from _parts(connection, room or Room())


def _parts(connection: Connection, room: Room) -> Iterator[tuple[str, str | None]]:
    yield str(next(connection.execute(_ABOUT))[0]), None
    installation = Installation(connection, room, lambda _: None)
    installation.check()
    applied: dict[int, object] = {}
    if next(connection.execute("select to_regclass('storage_cleanup.migration')"))[0] is not None:
        applied = dict(connection.execute("select number, applied_at from storage_cleanup.migration").fetchall())
    for migration in room.migrations:
        at = f", {applied[migration.number]:%Y-%m-%d %H:%M}" if migration.number in applied else ""
        yield f"migration {migration.number} ({migration.name}){at}", None if at else "missing"
    if applied.keys() != {migration.number for migration in room.migrations}:
        return  # the functions, which know what else belongs there, need the tables
    connection.execute("set local lock_timeout = '2s'")
    changed = installation.replace_functions()
    version = next(connection.execute("select storage_cleanup.schema_version()"))[0]
    yield f"functions of schema version {version}", "missing or different" if changed else None
    yield from connection.execute(_STATE).fetchall()


def main() -> int:
    """Print a line a part; return 1 when something is wrong."""
    complete = True
    try:
        for part, fault in status(administrator()):
            print(f"{part}: {fault}" if fault else part)  # noqa: T201
            complete = complete and not fault
    except (RefusedError, psycopg.Error) as error:
        print(f"Not installable: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("Complete." if complete else "Not complete: make install-database installs what is missing.")  # noqa: T201
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
