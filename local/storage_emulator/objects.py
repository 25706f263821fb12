"""What the server does with objects: rows of ``storage.objects``. Their bytes are the caller's business."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import errors as postgres
from psycopg import sql
from psycopg.types.json import Jsonb

from local.storage_emulator import errors
from local.storage_emulator.pool import Cursor

_LEGAL_NAME = re.compile(r"[A-Za-z0-9_/!.*'()&$@=;:+,? -]+")


@dataclass(frozen=True)
class Upload:
    """What is to be stored: everything about an object but its bytes."""

    bucket: str
    name: str
    version: str
    owner: str | None
    metadata: dict[str, Any]
    user_metadata: dict[str, Any] | None


@dataclass(frozen=True)
class Removed:
    """What a transaction removed: the rows as JSON text, their names, and the versions whose bytes are to go."""

    rows: str
    names: list[str]
    versions: list[str]


@dataclass(frozen=True)
class Found:
    """One object, as far as an answer needs it."""

    version: str
    metadata: dict[str, Any]


def check_name(name: str) -> None:
    """Raise ``InvalidKey`` for a name that objects may not have."""
    if not _LEGAL_NAME.fullmatch(name):
        raise errors.invalid_key(name)


def remove(cursor: Cursor, bucket: str, names: Sequence[str]) -> Removed:
    """Remove the objects that have exactly these names, one statement for all of them."""
    # Postgres writes the JSON, which is several times as fast as building it here.
    cursor.execute(
        """
        with removed as (
          delete from storage.objects where bucket_id = %s and name = any(%s::text[]) returning *
        )
        select coalesce(string_agg(json_build_object(
                 'name', name, 'bucket_id', bucket_id, 'owner', coalesce(owner::text, ''),
                 'owner_id', coalesce(owner_id, ''), 'version', version, 'id', id, 'updated_at', updated_at,
                 'created_at', created_at, 'last_accessed_at', last_accessed_at, 'metadata', metadata,
                 'user_metadata', coalesce(user_metadata, '{}'))::text, ','), ''),
               coalesce(array_agg(name), '{}'), coalesce(array_agg(version), '{}')
        from removed
        """,
        (bucket, list(names)),
    )
    return Removed(*_row(cursor))


def upload(cursor: Cursor, new: Upload, *, upsert: bool) -> tuple[str, str | None]:
    """Store an object; return its id, and the version that it replaces."""
    cursor.execute(
        "select version from storage.objects where bucket_id = %s and name = %s for update", (new.bucket, new.name)
    )
    replaced = cursor.fetchone()
    statement = sql.SQL(
        """
        insert into storage.objects (bucket_id, name, version, owner, owner_id, metadata, user_metadata)
        values (%(bucket)s, %(name)s, %(version)s, %(owner)s::uuid, %(owner)s, %(metadata)s, %(user_metadata)s)
        {} returning id::text
        """
    ).format(
        sql.SQL(
            """
            on conflict (bucket_id, name) do update
            set version = excluded.version, owner = excluded.owner, owner_id = excluded.owner_id,
                metadata = excluded.metadata, user_metadata = excluded.user_metadata
            """
            if upsert
            else ""
        )
    )
    row = {
        **{field: getattr(new, field) for field in ("bucket", "name", "version", "owner")},
        "metadata": Jsonb(new.metadata),
        "user_metadata": Jsonb(new.user_metadata) if new.user_metadata is not None else None,
    }
    try:
        cursor.execute(statement, row)
    except postgres.UniqueViolation:
        raise errors.duplicate("KeyAlreadyExists") from None
    (identity,) = _row(cursor)
    return identity, replaced[0] if replaced else None


def find(cursor: Cursor, bucket: str, name: str) -> Found:
    """Return an object that the caller may see."""
    cursor.execute("select version, metadata from storage.objects where bucket_id = %s and name = %s", (bucket, name))
    return Found(*_row(cursor))


def move(cursor: Cursor, source: tuple[str, str], destination: tuple[str, str], version: str) -> str:
    """Give an object another bucket, name and version; return the version that it had."""
    cursor.execute(
        """
        with source as (select id, version from storage.objects where bucket_id = %s and name = %s for update)
        update storage.objects as object set bucket_id = %s, name = %s, version = %s
        from source where object.id = source.id
        returning source.version
        """,
        (*source, *destination, version),
    )
    (replaced,) = _row(cursor)
    return str(replaced)


def copy(cursor: Cursor, source: tuple[str, str], destination: tuple[str, str], version: str) -> tuple[str, str]:
    """Copy an object's row; return the new row as JSON text, and the version of the source."""
    found = find(cursor, *source)
    cursor.execute(
        """
        insert into storage.objects (bucket_id, name, version, owner, owner_id, metadata, user_metadata)
        select %s, %s, %s, owner, owner_id, metadata, user_metadata
        from storage.objects where bucket_id = %s and name = %s
        returning json_build_object(
          'Key', bucket_id || '/' || name, 'Id', id, 'name', name, 'bucket_id', bucket_id,
          'owner', coalesce(owner::text, ''), 'owner_id', coalesce(owner_id, ''), 'version', version, 'id', id,
          'updated_at', updated_at, 'created_at', created_at, 'last_accessed_at', last_accessed_at,
          'metadata', metadata, 'user_metadata', coalesce(user_metadata, '{}'))::text
        """,
        (*destination, version, *source),
    )
    (row,) = _row(cursor)
    return row, found.version


def info(cursor: Cursor, bucket: str, name: str) -> dict[str, Any]:
    """Return what the server tells about an object."""
    cursor.execute(
        """
        select json_build_object(
          'id', id, 'name', name, 'version', version, 'bucket_id', bucket_id,
          'size', (metadata->>'size')::bigint, 'content_type', metadata->>'mimetype',
          'cache_control', metadata->>'cacheControl', 'etag', metadata->>'eTag',
          'metadata', coalesce(user_metadata, '{}'), 'last_modified', updated_at, 'created_at', created_at)
        from storage.objects where bucket_id = %s and name = %s
        """,
        (bucket, name),
    )
    answer: dict[str, Any]
    (answer,) = _row(cursor)
    return answer


def _row(cursor: Cursor) -> tuple[Any, ...]:
    """Return the row that a statement about one object has found."""
    row = cursor.fetchone()
    if row is None:
        raise errors.no_such_object()
    return row
