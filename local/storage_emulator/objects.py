"""What the server does with objects: rows of ``storage.objects``. Their bytes are the caller's business."""

import base64
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
    row = cursor.fetchone()
    if row is None:
        raise errors.no_such_object()
    return Found(*row)


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
    row = cursor.fetchone()
    if row is None:
        raise errors.no_such_object()
    return str(row[0])


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
    row = cursor.fetchone()
    if row is None:
        raise errors.no_such_object()
    answer: dict[str, Any] = row[0]
    return answer


def list_folder(cursor: Cursor, bucket: str, request: dict[str, Any]) -> str:
    """Return a page of one folder, objects and folders mixed, as JSON text."""
    prefix = request.get("prefix", "")
    order = request.get("sortBy") or {}
    column, direction = order.get("column", "name"), order.get("order", "asc")
    if column not in {"name", "updated_at", "created_at", "last_accessed_at"} or direction not in {"asc", "desc"}:
        raise errors.invalid_request("body/sortBy must name a column and asc or desc")
    cursor.execute(
        sql.SQL(
            """
            with entry as (
              select substr(name, length(%(prefix)s) + 1) as rest, *
              from storage.objects where bucket_id = %(bucket)s and starts_with(name, %(prefix)s)
            ), level (name, id, updated_at, created_at, last_accessed_at, metadata) as (
              select distinct split_part(rest, '/', 1), null::uuid, null::timestamptz, null::timestamptz,
                     null::timestamptz, null::jsonb
              from entry where strpos(rest, '/') > 0
              union all
              select rest, id, updated_at, created_at, last_accessed_at, metadata
              from entry where strpos(rest, '/') = 0
            ), page as (
              select * from level where starts_with(lower(name), lower(%(search)s))
              order by {} {}, name limit %(limit)s offset %(offset)s
            )
            select coalesce(json_agg(page), '[]')::text from page
            """
        ).format(sql.Identifier(column), sql.SQL(direction)),
        {
            "bucket": bucket,
            "prefix": f"{prefix.rstrip('/')}/" if prefix else "",
            "search": request.get("search") or "",
            "limit": request.get("limit", 100),
            "offset": request.get("offset", 0),
        },
    )
    (page,) = _row(cursor)
    return str(page)


def list_by_cursor(cursor: Cursor, bucket: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return a page of all objects below a prefix, in the order of their names."""
    if request.get("with_delimiter") or request.get("sortBy"):
        raise errors.StorageError(
            501, "NotImplemented", "The emulator lists without folders, by name", "NotImplemented"
        )
    after = base64.b64decode(request.get("cursor") or "").decode().removeprefix("l:")
    limit = min(request.get("limit", 1000), 1000)
    cursor.execute(
        """
        select json_build_object('id', id, 'name', name, 'metadata', metadata, 'updated_at', updated_at,
                                 'created_at', created_at, 'last_accessed_at', last_accessed_at)
        from storage.objects
        where bucket_id = %s and starts_with(name, %s) and name collate "C" > %s
        order by name collate "C" limit %s
        """,
        (bucket, request.get("prefix", ""), after, limit + 1),
    )
    found = [row for (row,) in cursor]
    page, more = found[:limit], len(found) > limit
    answer: dict[str, Any] = {"hasNext": more}
    if more:
        last = page[-1]["name"]
        answer |= {"nextCursor": base64.b64encode(f"l:{last}".encode()).decode(), "nextCursorKey": last}
    return answer | {"folders": [], "objects": page}


def _row(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise errors.no_such_object()
    return row
