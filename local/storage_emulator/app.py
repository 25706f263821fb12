"""The routes of the Storage server, below ``/storage/v1``."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import jwt
import psycopg
from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.routing import BaseConverter

from local.storage_emulator import buckets, errors, objects
from local.storage_emulator.auth import SERVER, Caller, authenticate, verify
from local.storage_emulator.blobs import Blobs
from local.storage_emulator.control import control_routes
from local.storage_emulator.faults import Faults
from local.storage_emulator.pool import Cursor, Pool
from local.storage_emulator.stats import Stats

TRANSACTION_SIZE = 500
MOST_NAMES = 1000
MOST_JSON_BYTES = 1024 * 1024

_JSON = "application/json; charset=utf-8"
# What a URL carries as it is; of an object name's legal characters only the space and the question mark are not.
_URL_SAFE = "/!*'()&$@=;:+,"


class Emulator:
    """A Storage server's state: its database and bytes, which tests may exchange, and its secret."""

    def __init__(self, jwt_secret: str) -> None:
        self.jwt_secret = jwt_secret
        self.stats = Stats()
        self.faults = Faults(self.stats)
        self._pool: Pool | None = None
        self._blobs: Blobs | None = None

    def use(
        self, database_url: str, directory: Path, *, pool_size: int = 20, statement_timeout_ms: int = 30_000
    ) -> None:
        """Work on a database and a directory from now on, with all counters at zero and no faults."""
        self.release()
        self._pool = Pool(database_url, size=pool_size, statement_timeout_ms=statement_timeout_ms)
        self._blobs = Blobs(directory)
        self.faults.configure({})
        self.stats.reset()

    def release(self) -> None:
        """Let go of the database, so that it can be dropped."""
        if self._pool:
            self._pool.close()
        self._pool = None

    @property
    def blobs(self) -> Blobs:
        """The bytes."""
        if self._blobs is None:
            raise errors.internal()
        return self._blobs

    @contextmanager
    def transaction(self, caller: Caller) -> Iterator[Cursor]:
        """Run a transaction as the caller; an error of the database becomes the server's answer to it."""
        if self._pool is None:
            raise errors.internal()
        try:
            with self._pool.transaction(caller) as cursor:
                yield cursor
        except errors.PoolExhaustedError:
            raise errors.database_timeout() from None
        except psycopg.Error as error:
            raise errors.translate(error) from error

    def caller(self) -> Caller:
        """Return who sent the current request."""
        return authenticate(request.headers.get("Authorization"), self.jwt_secret)


class _ObjectName(BaseConverter):
    """Whatever follows, slashes at either end included."""

    regex = ".*"
    part_isolating = False


def create_app(emulator: Emulator) -> Flask:
    """Return the WSGI application."""
    app = Flask(__name__)
    app.url_map.merge_slashes = False
    app.url_map.converters["name"] = _ObjectName

    @app.before_request
    def read_body() -> None:
        # Kept-alive connections need it read to the end, whatever the answer will be.
        request.get_data()

    @app.errorhandler(errors.StorageError)
    def refuse(error: errors.StorageError) -> Response:
        return _json(error.body, error.http_status)

    @app.errorhandler(HTTPException)
    def refuse_route(error: HTTPException) -> Response:
        status = error.code or 500
        return _json({"statusCode": str(status), "error": error.name, "message": error.description}, status)

    storage = Blueprint("storage", __name__, url_prefix="/storage/v1")
    _bucket_routes(storage, emulator)
    _object_routes(storage, emulator)
    _reading_routes(storage, emulator)
    app.register_blueprint(storage)
    app.register_blueprint(control_routes(emulator))
    return app


_View = Callable[..., Response]


def _router(blueprint: Blueprint, emulator: Emulator) -> Callable[..., Callable[[_View], _View]]:
    """Return the decorator that adds a route, counted and open to faults under the view's name."""

    def route(rule: str, *methods: str) -> Callable[[_View], _View]:
        def add(view: _View) -> _View:
            operation = view.__name__

            @functools.wraps(view)
            def answer(**arguments: str) -> Response:
                emulator.stats.count_request(operation)
                return emulator.faults.around(operation, lambda: view(**arguments))

            blueprint.add_url_rule(rule, operation, answer, methods=methods)
            return view

        return add

    return route


def _bucket_routes(blueprint: Blueprint, emulator: Emulator) -> None:
    route = _router(blueprint, emulator)

    @route("/bucket", "POST")
    def create_bucket() -> Response:
        caller, body = emulator.caller(), _body("name")
        with emulator.transaction(caller) as cursor:
            buckets.create(cursor, body, caller.subject)
        return _json({"name": body["name"]})

    @route("/bucket", "GET")
    def list_buckets() -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            return _json(buckets.describe(cursor))

    @route("/bucket/<bucket>", "GET")
    def get_bucket(bucket: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            return _json(buckets.describe(cursor, bucket)[0])

    @route("/bucket/<bucket>", "PUT")
    def update_bucket(bucket: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            buckets.update(cursor, bucket, public=bool(_body("public")["public"]))
        return _json({"message": "Successfully updated"})

    @route("/bucket/<bucket>/empty", "POST")
    def empty_bucket(bucket: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            versions = buckets.empty(cursor, bucket)
        emulator.blobs.remove(versions)
        return _json({"message": "Successfully emptied"})

    @route("/bucket/<bucket>", "DELETE")
    def delete_bucket(bucket: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            buckets.delete(cursor, bucket)
        return _json({"message": "Successfully deleted"})


def _object_routes(blueprint: Blueprint, emulator: Emulator) -> None:
    route = _router(blueprint, emulator)

    @route("/object/<bucket>", "DELETE")
    def remove(bucket: str) -> Response:
        caller, names = emulator.caller(), _prefixes()
        rows = []
        for chunk in _chunks(emulator.faults.share(names)):
            emulator.faults.check_poison(chunk)
            with emulator.transaction(caller) as cursor:
                removed = objects.remove(cursor, bucket, chunk)
            emulator.blobs.remove(removed.versions)
            emulator.stats.count_removals(bucket, removed.names)
            if removed.rows:
                rows.append(removed.rows)
        return Response(f"[{','.join(rows)}]", content_type=_JSON)

    @route("/object/<bucket>/<name:name>", "DELETE")
    def remove_one(bucket: str, name: str) -> Response:
        caller = emulator.caller()
        with emulator.transaction(SERVER) as cursor:
            objects.find(cursor, bucket, name)
        with emulator.transaction(caller) as cursor:
            removed = objects.remove(cursor, bucket, [name])
        if not removed.names:
            raise errors.unauthorized("Access denied")
        emulator.blobs.remove(removed.versions)
        emulator.stats.count_removals(bucket, removed.names)
        return _json({"message": "Successfully deleted"})

    @route("/object/<bucket>/<name:name>", "POST", "PUT")
    def upload(bucket: str, name: str) -> Response:
        upsert = request.method == "PUT" or request.headers.get("x-upsert") == "true"
        return _store(emulator, emulator.caller(), bucket, name, upsert=upsert)

    @route("/object/upload/sign/<bucket>/<name:name>", "POST")
    def sign_upload(bucket: str, name: str) -> Response:
        emulator.caller()
        objects.check_name(name)
        upsert = request.headers.get("x-upsert") == "true"
        token = _sign(emulator, {"url": f"{bucket}/{name}", "upsert": upsert}, lifetime=7200)
        return _json(
            {"url": f"/object/upload/sign/{bucket}/{quote(name, safe=_URL_SAFE)}?token={token}", "token": token}
        )

    @route("/object/upload/sign/<bucket>/<name:name>", "PUT")
    def upload_signed(bucket: str, name: str) -> Response:
        claims = _signed_claims(emulator, bucket, name)
        return _store(emulator, Caller("service_role", {}), bucket, name, upsert=bool(claims.get("upsert")))

    @route("/object/move", "POST")
    def move() -> Response:
        caller, (source, destination) = emulator.caller(), _source_and_destination()
        version = str(uuid4())
        with emulator.transaction(caller) as cursor:
            replaced = objects.move(cursor, source, destination, version)
            _duplicate(emulator, replaced, version)
        emulator.blobs.remove([replaced])
        return _json({"message": "Successfully moved"})

    @route("/object/copy", "POST")
    def copy() -> Response:
        caller, (source, destination) = emulator.caller(), _source_and_destination()
        version = str(uuid4())
        with emulator.transaction(caller) as cursor:
            row, original = objects.copy(cursor, source, destination, version)
            _duplicate(emulator, original, version)
        return Response(row, content_type=_JSON)


def _reading_routes(blueprint: Blueprint, emulator: Emulator) -> None:
    route = _router(blueprint, emulator)

    @route("/object/info/<bucket>/<name:name>", "GET")
    def info(bucket: str, name: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            return _json(objects.info(cursor, bucket, name))

    @route("/object/list/<bucket>", "POST")
    def list_folder(bucket: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            return Response(objects.list_folder(cursor, bucket, _body("prefix")), content_type=_JSON)

    @route("/object/list-v2/<bucket>", "POST")
    def list_by_cursor(bucket: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            return _json(objects.list_by_cursor(cursor, bucket, _body()))

    @route("/object/sign/<bucket>/<name:name>", "POST")
    def sign(bucket: str, name: str) -> Response:
        with emulator.transaction(emulator.caller()) as cursor:
            objects.find(cursor, bucket, name)
        token = _sign(emulator, {"url": f"{bucket}/{name}"}, lifetime=int(_body("expiresIn")["expiresIn"]))
        # As the real server does it: a raw signed URL may carry unencoded spaces.
        return _json({"signedURL": f"/object/sign/{bucket}/{name}?token={token}"})

    @route("/object/sign/<bucket>/<name:name>", "GET")
    def download_signed(bucket: str, name: str) -> Response:
        _signed_claims(emulator, bucket, name)
        return _download(emulator, SERVER, bucket, name)

    @route("/object/public/<bucket>/<name:name>", "GET")
    def download_public(bucket: str, name: str) -> Response:
        with emulator.transaction(SERVER) as cursor:
            if not buckets.describe(cursor, bucket)[0]["public"]:
                raise errors.no_such_bucket()
        return _download(emulator, SERVER, bucket, name)

    @route("/object/authenticated/<bucket>/<name:name>", "GET")
    def download_authenticated(bucket: str, name: str) -> Response:
        return _download(emulator, emulator.caller(), bucket, name)

    @route("/object/<bucket>/<name:name>", "GET")
    def download(bucket: str, name: str) -> Response:
        return _download(emulator, emulator.caller(), bucket, name)

    # Images are handed out as they are: nothing here depends on their size.
    route("/render/image/public/<bucket>/<name:name>", "GET")(_renamed(download_public, "render_public"))
    route("/render/image/sign/<bucket>/<name:name>", "GET")(_renamed(download_signed, "render_signed"))
    route("/render/image/authenticated/<bucket>/<name:name>", "GET")(_renamed(download, "render_authenticated"))


def _renamed(view: _View, name: str) -> _View:
    def renamed(**arguments: str) -> Response:
        return view(**arguments)

    renamed.__name__ = name
    return renamed


def _store(emulator: Emulator, caller: Caller, bucket: str, name: str, *, upsert: bool) -> Response:
    objects.check_name(name)
    with emulator.transaction(SERVER) as cursor:
        limit = buckets.describe(cursor, bucket)[0]["file_size_limit"]
    content, metadata, user_metadata = _uploaded()
    if limit is not None and len(content) > limit:
        raise errors.object_too_large()
    new = objects.Upload(bucket, name, str(uuid4()), caller.subject, metadata, user_metadata)
    emulator.blobs.write(new.version, content)
    try:
        with emulator.transaction(caller) as cursor:
            identity, replaced = objects.upload(cursor, new, upsert=upsert)
    except errors.StorageError:
        emulator.blobs.remove([new.version])
        raise
    emulator.blobs.remove([replaced] if replaced else [])
    return _json({"Key": f"{bucket}/{name}", "Id": identity})


def _download(emulator: Emulator, caller: Caller, bucket: str, name: str) -> Response:
    with emulator.transaction(caller) as cursor:
        found = objects.find(cursor, bucket, name)
    content = emulator.blobs.read(found.version)
    if content is None:
        raise errors.no_such_object()
    return Response(content, content_type=found.metadata["mimetype"], headers={"ETag": found.metadata["eTag"]})


def _duplicate(emulator: Emulator, version: str, new_version: str) -> None:
    if not emulator.blobs.duplicate(version, new_version):
        raise errors.no_such_object()


def _uploaded() -> tuple[bytes, dict[str, Any], dict[str, Any] | None]:
    """Return the bytes of the current request with what the server notes about them, and what the user did."""
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


def _sign(emulator: Emulator, claims: dict[str, Any], *, lifetime: int) -> str:
    return jwt.encode({**claims, "exp": int(time.time()) + lifetime}, emulator.jwt_secret, algorithm="HS256")


def _signed_claims(emulator: Emulator, bucket: str, name: str) -> dict[str, Any]:
    claims = verify(request.args.get("token", ""), emulator.jwt_secret)
    if claims.get("url") != f"{bucket}/{name}":
        raise errors.StorageError(400, "InvalidSignature", "The signature doesn't match the URL", "InvalidSignature")
    return claims


def _body(*required: str) -> dict[str, Any]:
    """Return the JSON object that the current request carries."""
    if len(request.get_data()) > MOST_JSON_BYTES:
        raise errors.body_too_large()
    try:
        body = request.get_json(force=True)
    except BadRequest:
        raise errors.invalid_request("Body is not valid JSON") from None
    if not isinstance(body, dict):
        raise errors.invalid_request("body must be object")
    for name in required:
        if name not in body:
            raise errors.invalid_request(f"body must have required property '{name}'")
    return body


def _prefixes() -> list[str]:
    names: list[str] = _body("prefixes")["prefixes"]
    if not names:
        raise errors.invalid_request("body/prefixes must NOT have fewer than 1 items")
    if len(names) > MOST_NAMES:
        raise errors.invalid_request(
            f"Bulk object requests are limited to {MOST_NAMES} objects per request.", error="InvalidRequest"
        )
    return names


def _source_and_destination() -> tuple[tuple[str, str], tuple[str, str]]:
    body = _body("bucketId", "sourceKey", "destinationKey")
    objects.check_name(body["destinationKey"])
    return (
        (body["bucketId"], body["sourceKey"]),
        (body.get("destinationBucket") or body["bucketId"], body["destinationKey"]),
    )


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), TRANSACTION_SIZE):
        yield names[start : start + TRANSACTION_SIZE]


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type=_JSON)
