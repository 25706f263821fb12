"""The Storage API below ``/storage/v1``: one view an operation, counted and open to faults under the view's name."""

import functools
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote
from uuid import uuid4

from flask import Blueprint, Response, request

from local.storage_emulator import buckets, errors, listing, objects, requests
from local.storage_emulator.answers import as_json, json_text
from local.storage_emulator.auth import SERVER, SERVICE_ROLE, Caller, authenticate, sign, verify
from local.storage_emulator.emulator import Emulator

_TRANSACTION_SIZE = 500
# What a URL carries as it is; of an object name's legal characters only the space and the question mark are not.
_URL_SAFE = "/!*'()&$@=;:+,"

_View = Callable[..., Response]
_Route = Callable[..., Callable[[_View], _View]]


def storage_routes(emulator: Emulator) -> Blueprint:
    """Return all routes of the API."""
    blueprint = Blueprint("storage", __name__, url_prefix="/storage/v1")

    def route(rule: str, *methods: str, operation: str | None = None) -> Callable[[_View], _View]:
        def add(view: _View) -> _View:
            name = operation or view.__name__

            @functools.wraps(view)
            def answer(**arguments: str) -> Response:
                emulator.stats.count("requests", [name])
                return emulator.faults.around(name, lambda: view(**arguments))

            blueprint.add_url_rule(rule, name, answer, methods=methods)
            return view

        return add

    _bucket_routes(route, emulator)
    _upload_routes(route, emulator)
    _removal_routes(route, emulator)
    _listing_routes(route, emulator)
    _download_routes(route, emulator)
    return blueprint


def _bucket_routes(route: _Route, emulator: Emulator) -> None:
    @route("/bucket", "POST")
    def create_bucket() -> Response:
        caller, body = _caller(emulator), requests.body("name")
        with emulator.transaction(caller) as cursor:
            buckets.create(cursor, body, caller.subject)
        return as_json({"name": body["name"]})

    @route("/bucket", "GET")
    def list_buckets() -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            return as_json(buckets.describe(cursor))

    @route("/bucket/<bucket>", "GET")
    def get_bucket(bucket: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            return as_json(buckets.describe(cursor, bucket)[0])

    @route("/bucket/<bucket>", "PUT")
    def update_bucket(bucket: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            buckets.update(cursor, bucket, public=bool(requests.body("public")["public"]))
        return as_json({"message": "Successfully updated"})

    @route("/bucket/<bucket>/empty", "POST")
    def empty_bucket(bucket: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            versions = buckets.empty(cursor, bucket)
        emulator.blobs.remove(versions)
        return as_json({"message": "Successfully emptied"})

    @route("/bucket/<bucket>", "DELETE")
    def delete_bucket(bucket: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            buckets.delete(cursor, bucket)
        return as_json({"message": "Successfully deleted"})


def _upload_routes(route: _Route, emulator: Emulator) -> None:
    @route("/object/<bucket>/<name:name>", "POST", "PUT")
    def upload(bucket: str, name: str) -> Response:
        upsert = request.method == "PUT" or requests.is_upsert()
        return _store(emulator, _caller(emulator), bucket, name, upsert=upsert)

    @route("/object/upload/sign/<bucket>/<name:name>", "POST")
    def sign_upload(bucket: str, name: str) -> Response:
        _caller(emulator)
        objects.check_name(name)
        claims = {"url": f"{bucket}/{name}", "upsert": requests.is_upsert()}
        token = sign(claims, emulator.jwt_secret, lifetime=7200)
        url = f"/object/upload/sign/{bucket}/{quote(name, safe=_URL_SAFE)}?token={token}"
        return as_json({"url": url, "token": token})

    @route("/object/upload/sign/<bucket>/<name:name>", "PUT")
    def upload_signed(bucket: str, name: str) -> Response:
        claims = _signed_claims(emulator, bucket, name)
        return _store(emulator, SERVICE_ROLE, bucket, name, upsert=bool(claims.get("upsert")))

    @route("/object/move", "POST")
    def move() -> Response:
        caller, (source, destination) = _caller(emulator), requests.source_and_destination()
        version = str(uuid4())
        with emulator.transaction(caller) as cursor:
            replaced = objects.move(cursor, source, destination, version)
            _duplicate(emulator, replaced, version)
        emulator.blobs.remove([replaced])
        return as_json({"message": "Successfully moved"})

    @route("/object/copy", "POST")
    def copy() -> Response:
        caller, (source, destination) = _caller(emulator), requests.source_and_destination()
        version = str(uuid4())
        with emulator.transaction(caller) as cursor:
            row, original = objects.copy(cursor, source, destination, version)
            _duplicate(emulator, original, version)
        return json_text(row)


def _removal_routes(route: _Route, emulator: Emulator) -> None:
    @route("/object/<bucket>", "DELETE")
    def remove(bucket: str) -> Response:
        caller, names = _caller(emulator), requests.prefixes()
        rows = []
        for chunk in _chunks(emulator.faults.share(names)):
            emulator.faults.check_poison(chunk)
            if removed := remove_rows(caller, bucket, chunk).rows:
                rows.append(removed)
        return json_text(f"[{','.join(rows)}]")

    @route("/object/<bucket>/<name:name>", "DELETE")
    def remove_one(bucket: str, name: str) -> Response:
        caller = _caller(emulator)
        with emulator.transaction(SERVER) as cursor:
            objects.find(cursor, bucket, name)
        if not remove_rows(caller, bucket, [name]).names:
            raise errors.unauthorized("Access denied")
        return as_json({"message": "Successfully deleted"})

    def remove_rows(caller: Caller, bucket: str, names: Sequence[str]) -> objects.Removed:
        with emulator.transaction(caller) as cursor:
            removed = objects.remove(cursor, bucket, names)
        emulator.blobs.remove(removed.versions)
        emulator.stats.count("removals", (f"{bucket}/{name}" for name in removed.names))
        return removed


def _listing_routes(route: _Route, emulator: Emulator) -> None:
    @route("/object/info/<bucket>/<name:name>", "GET")
    def info(bucket: str, name: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            return as_json(objects.info(cursor, bucket, name))

    @route("/object/list/<bucket>", "POST")
    def list_folder(bucket: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            return json_text(listing.by_folder(cursor, bucket, requests.body("prefix")))

    @route("/object/list-v2/<bucket>", "POST")
    def list_by_cursor(bucket: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            return as_json(listing.by_cursor(cursor, bucket, requests.body()))


def _download_routes(route: _Route, emulator: Emulator) -> None:
    @route("/object/sign/<bucket>/<name:name>", "POST", operation="sign")
    def sign_download(bucket: str, name: str) -> Response:
        with emulator.transaction(_caller(emulator)) as cursor:
            objects.find(cursor, bucket, name)
        lifetime = int(requests.body("expiresIn")["expiresIn"])
        token = sign({"url": f"{bucket}/{name}"}, emulator.jwt_secret, lifetime=lifetime)
        # As the real server does it: a raw signed URL may carry unencoded spaces.
        return as_json({"signedURL": f"/object/sign/{bucket}/{name}?token={token}"})

    # Images are handed out as they are: nothing here depends on their size.
    @route("/object/sign/<bucket>/<name:name>", "GET")
    @route("/render/image/sign/<bucket>/<name:name>", "GET", operation="render_signed")
    def download_signed(bucket: str, name: str) -> Response:
        _signed_claims(emulator, bucket, name)
        return _download(emulator, SERVER, bucket, name)

    @route("/object/public/<bucket>/<name:name>", "GET")
    @route("/render/image/public/<bucket>/<name:name>", "GET", operation="render_public")
    def download_public(bucket: str, name: str) -> Response:
        with emulator.transaction(SERVER) as cursor:
            if not buckets.describe(cursor, bucket)[0]["public"]:
                raise errors.no_such_bucket()
        return _download(emulator, SERVER, bucket, name)

    @route("/object/<bucket>/<name:name>", "GET")
    @route("/object/authenticated/<bucket>/<name:name>", "GET", operation="download_authenticated")
    @route("/render/image/authenticated/<bucket>/<name:name>", "GET", operation="render_authenticated")
    def download(bucket: str, name: str) -> Response:
        return _download(emulator, _caller(emulator), bucket, name)


def _caller(emulator: Emulator) -> Caller:
    """Return who sent the current request."""
    return authenticate(request.headers.get("Authorization"), emulator.jwt_secret)


def _signed_claims(emulator: Emulator, bucket: str, name: str) -> dict[str, object]:
    """Return the claims of the current request's signed URL, which must be one of this object."""
    claims = verify(request.args.get("token", ""), emulator.jwt_secret)
    if claims.get("url") != f"{bucket}/{name}":
        raise errors.invalid_signature()
    return claims


def _store(emulator: Emulator, caller: Caller, bucket: str, name: str, *, upsert: bool) -> Response:
    objects.check_name(name)
    with emulator.transaction(SERVER) as cursor:
        limit = buckets.describe(cursor, bucket)[0]["file_size_limit"]
    content, metadata, user_metadata = requests.uploaded()
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
    return as_json({"Key": f"{bucket}/{name}", "Id": identity})


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


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _TRANSACTION_SIZE):
        yield names[start : start + _TRANSACTION_SIZE]
