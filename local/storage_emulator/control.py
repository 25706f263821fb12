"""The routes by which tests steer the emulator, below ``/_control``; a real server has nothing like them.

Faults and counters know an operation by the name of its view in ``routes``: ``remove``, ``upload``, ``list_folder`` ...
"""

from flask import Blueprint, Response, jsonify, request

from local.storage_emulator.emulator import Emulator


def control_routes(emulator: Emulator) -> Blueprint:
    """Return the routes that steer an emulator."""
    control = Blueprint("control", __name__, url_prefix="/_control")

    @control.put("/target")
    def use() -> Response:
        emulator.use(**request.get_json())
        return jsonify({})

    @control.delete("/target")
    def release() -> Response:
        emulator.release()
        return jsonify({})

    @control.put("/faults")
    def configure_faults() -> Response | tuple[Response, int]:
        try:
            emulator.faults.configure(**request.get_json())
        except (TypeError, ValueError) as error:
            return jsonify({"message": str(error)}), 400
        return jsonify({})

    @control.delete("/faults")
    def clear_faults() -> Response:
        emulator.faults.configure()
        return jsonify({})

    @control.get("/stats")
    def read_stats() -> Response:
        return jsonify(emulator.stats.as_dict())

    @control.delete("/stats")
    def reset_stats() -> Response:
        emulator.stats.reset()
        return jsonify({})

    return control
