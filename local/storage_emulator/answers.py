"""What goes back to the client."""

import json

from flask import Response


def as_json(value: object, status: int = 200) -> Response:
    """Return an answer that carries a value."""
    return json_text(json.dumps(value), status)


def json_text(text: str, status: int = 200) -> Response:
    """Return an answer that carries JSON which is written already."""
    return Response(text, status, content_type="application/json; charset=utf-8")
