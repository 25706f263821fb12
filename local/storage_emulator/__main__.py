"""Run the emulator in the foreground, until the process is ended.

STORAGE_JWT_SECRET has the secret with which the keys that it accepts are signed; PUT /_control/target tells it which
database and directory to serve.
"""

import argparse
import os
from typing import TYPE_CHECKING

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

from local.storage_emulator.app import create_app
from local.storage_emulator.emulator import Emulator

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class _Handler(WSGIRequestHandler):
    """Keeps connections alive and logs nothing.

    Werkzeug's own way to answer closes every connection, because it can't know that the application reads bodies to
    their end. This application does.
    """

    protocol_version = "HTTP/1.1"
    # Headers and body may be two packets; with Nagle's algorithm the second would wait for the client's delayed ACK.
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        """Answer one request."""
        application: WSGIApplication = self.server.app
        content, status, headers = run_wsgi_app(application, self.make_environ())
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        for part in content:
            self.wfile.write(part)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m local.storage_emulator", description=__doc__)
    parser.add_argument("port", type=int, help="of the loopback interface")
    options = parser.parse_args()
    emulator = Emulator(os.environ["STORAGE_JWT_SECRET"])
    make_server(
        "127.0.0.1", options.port, create_app(emulator), threaded=True, request_handler=_Handler
    ).serve_forever()


if __name__ == "__main__":
    main()
