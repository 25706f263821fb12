"""What the server lists: the objects of a bucket, by folder or by cursor."""

import base64
from typing import Any

from psycopg import sql

from local.storage_emulator import errors
from local.storage_emulator.pool import Cursor


def by_folder(cursor: Cursor, bucket: str, request: dict[str, Any]) -> str:
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
    (page,) = cursor.fetchone() or ("[]",)
    return str(page)


def by_cursor(cursor: Cursor, bucket: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return a page of all objects below a prefix, in the order of their names."""
    if request.get("with_delimiter") or request.get("sortBy"):
        raise errors.not_emulated()
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
