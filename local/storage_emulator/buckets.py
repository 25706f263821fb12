"""What the server does with buckets."""

from typing import Any

from psycopg import errors as postgres

from local.storage_emulator import errors
from local.storage_emulator.pool import Cursor


def create(cursor: Cursor, bucket: dict[str, Any], owner: str | None) -> None:
    """Create a bucket from the fields of a request."""
    row = {
        "id": bucket.get("id") or bucket["name"],
        "name": bucket["name"],
        "owner": owner,
        "public": bucket.get("public", False),
        "file_size_limit": bucket.get("file_size_limit"),
        "allowed_mime_types": bucket.get("allowed_mime_types"),
    }
    try:
        cursor.execute(
            """
            insert into storage.buckets (id, name, owner, owner_id, public, file_size_limit, allowed_mime_types)
            values (%(id)s, %(name)s, %(owner)s::uuid, %(owner)s, %(public)s, %(file_size_limit)s,
                    %(allowed_mime_types)s)
            """,
            row,
        )
    except postgres.UniqueViolation:
        raise errors.duplicate("BucketAlreadyExists") from None


def describe(cursor: Cursor, bucket: str | None = None) -> list[dict[str, Any]]:
    """Return one bucket, or all of them, as far as the caller may see them."""
    cursor.execute(
        """
        select coalesce(json_agg(json_build_object(
                 'id', id, 'name', name, 'owner', coalesce(owner::text, ''), 'public', public,
                 'file_size_limit', file_size_limit, 'allowed_mime_types', allowed_mime_types,
                 'created_at', created_at, 'updated_at', updated_at) order by id), '[]')
        from storage.buckets
        where %(bucket)s::text is null or id = %(bucket)s
        """,
        {"bucket": bucket},
    )
    found: list[dict[str, Any]]
    (found,) = cursor.fetchone() or ([],)
    if bucket is not None and not found:
        raise errors.no_such_bucket()
    return found


def update(cursor: Cursor, bucket: str, *, public: bool) -> None:
    """Make a bucket public or private."""
    describe(cursor, bucket)
    cursor.execute("update storage.buckets set public = %s, updated_at = now() where id = %s", (public, bucket))


def delete(cursor: Cursor, bucket: str) -> None:
    """Delete an empty bucket."""
    describe(cursor, bucket)
    try:
        cursor.execute("delete from storage.buckets where id = %s", (bucket,))
    except postgres.ForeignKeyViolation:
        raise errors.bucket_not_empty() from None


def empty(cursor: Cursor, bucket: str) -> list[str]:
    """Delete all objects of a bucket; return their versions."""
    describe(cursor, bucket)
    cursor.execute("delete from storage.objects where bucket_id = %s returning version", (bucket,))
    return [version for (version,) in cursor]
