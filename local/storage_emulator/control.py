"""The routes by which tests steer the emulator, below ``/_control``; a real server has nothing like them.

======  ===========  ===============================================================================================
method  path         does
======  ===========  ===============================================================================================
PUT     ``/target``  serve this database and directory from now on, with all counters at zero and no faults:
                     ``database_url``, ``directory``, ``pool_size``, ``statement_timeout_ms``
DELETE  ``/target``  let go of the database, so that it can be dropped
PUT     ``/faults``  inject faults from now on: the fields that ``faults.Faults`` lists; 400 for what isn't one
DELETE  ``/faults``  inject none any more, and end the requests that hang
GET     ``/stats``   the counters since the last reset: the fields that ``stats.Stats.as_dict`` lists
DELETE  ``/stats``   set all counters to zero
======  ===========  ===============================================================================================

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
