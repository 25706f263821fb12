"""The routes by which tests steer the emulator, below ``/_control``; a real server has nothing like them."""

from pathlib import Path
from typing import Protocol

from flask import Blueprint, Response, jsonify, request

from local.storage_emulator.faults import Faults
from local.storage_emulator.stats import Stats


class Steerable(Protocol):
    """What can be steered."""

    stats: Stats
    faults: Faults

    def use(self, database_url: str, directory: Path, *, pool_size: int, statement_timeout_ms: int) -> None:
        """Work on a database and a directory from now on."""

    def release(self) -> None:
        """Let go of the database."""


def control_routes(emulator: Steerable) -> Blueprint:
    """Return the routes that steer an emulator."""
    control = Blueprint("control", __name__, url_prefix="/_control")

    @control.put("/target")
    def use() -> Response:
        wanted = request.get_json()
        emulator.use(
            wanted["database_url"],
            Path(wanted["directory"]),
            pool_size=wanted["pool_size"],
            statement_timeout_ms=wanted["statement_timeout_ms"],
        )
        return jsonify({})

    @control.delete("/target")
    def release() -> Response:
        emulator.release()
        return jsonify({})

    @control.put("/faults")
    def configure_faults() -> Response | tuple[Response, int]:
        try:
            emulator.faults.configure(request.get_json())
        except ValueError as error:
            return jsonify({"message": str(error)}), 400
        return jsonify({})

    @control.delete("/faults")
    def clear_faults() -> Response:
        emulator.faults.configure({})
        return jsonify({})

    @control.get("/stats")
    def read_stats() -> Response:
        return jsonify(emulator.stats.as_dict())

    @control.delete("/stats")
    def reset_stats() -> Response:
        emulator.stats.reset()
        return jsonify({})

    return control
