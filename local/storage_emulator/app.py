"""The WSGI application: what all requests have in common."""

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from local.storage_emulator.answers import as_json
from local.storage_emulator.control import control_routes
from local.storage_emulator.emulator import Emulator
from local.storage_emulator.errors import StorageError
from local.storage_emulator.routes import storage_routes


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

    @app.errorhandler(StorageError)
    def refuse(error: StorageError) -> Response:
        return as_json(error.body, error.http_status)

    @app.errorhandler(HTTPException)
    def refuse_route(error: HTTPException) -> Response:
        status = error.code or 500
        return as_json({"statusCode": str(status), "error": error.name, "message": error.description}, status)

    app.register_blueprint(storage_routes(emulator))
    app.register_blueprint(control_routes(emulator))
    return app
