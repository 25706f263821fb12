"""What the current request carries; what the server can't read is refused."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest

from local.storage_emulator import errors, objects

_MOST_NAMES = 1000
_MOST_JSON_BYTES = 1024 * 1024

Address = tuple[str, str]
"""Bucket and name."""


def body(*required: str) -> dict[str, Any]:
    """Return the JSON object in the body, with the fields that it must have."""
    if len(request.get_data()) > _MOST_JSON_BYTES:
        raise errors.body_too_large()
    try:
        content = request.get_json(force=True)
    except BadRequest:
        raise errors.invalid_request("Body is not valid JSON") from None
    if not isinstance(content, dict):
        raise errors.invalid_request("body must be object")
    for name in required:
        if name not in content:
            raise errors.invalid_request(f"body must have required property '{name}'")
    return content


def prefixes() -> list[str]:
    """Return the names that are to be removed."""
    names: list[str] = body("prefixes")["prefixes"]
    if not names:
        raise errors.invalid_request("body/prefixes must NOT have fewer than 1 items")
    if len(names) > _MOST_NAMES:
        raise errors.invalid_request(
            f"Bulk object requests are limited to {_MOST_NAMES} objects per request.", error="InvalidRequest"
        )
    return names


def source_and_destination() -> tuple[Address, Address]:
    """Return from where and to where an object is to be moved or copied."""
    content = body("bucketId", "sourceKey", "destinationKey")
    objects.check_name(content["destinationKey"])
    return (
        (content["bucketId"], content["sourceKey"]),
        (content.get("destinationBucket") or content["bucketId"], content["destinationKey"]),
    )


def is_upsert() -> bool:
    """Tell whether an upload may replace what is there."""
    return request.headers.get("x-upsert") == "true"


def uploaded() -> tuple[bytes, dict[str, Any], dict[str, Any] | None]:
    """Return the bytes of an upload with what the server notes about them, and what the user did."""
    files = list(request.files.values())
    if files:
        content, mime_type = files[0].read(), files[0].mimetype
        max_age, user_metadata = request.form.get("cacheControl"), request.form.get("metadata")
        cache_control = f"max-age={max_age}" if max_age else "no-cache"
    else:
        content, mime_type, user_metadata = request.get_data(), request.content_type, None
        cache_control = request.headers.get("Cache-Control", "no-cache")
    metadata = {
        "eTag": f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"',
        "size": len(content),
        "mimetype": mime_type or "application/octet-stream",
        "cacheControl": cache_control,
        "lastModified": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "contentLength": len(content),
        "httpStatusCode": 200,
    }
    return content, metadata, json.loads(user_metadata) if user_metadata else None
