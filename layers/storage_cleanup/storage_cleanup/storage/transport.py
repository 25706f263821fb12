"""HTTP with a deadline for each request as a whole.

A timeout of httpx is one of a single read or write: a server that sends a byte now and then is never late. Here every
operation on the socket (connecting, the TLS handshake, each read and write) gets what is left of the request's time.
"""

import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable

import httpcore
import httpx

_CHUNK = 65_536


class DeadlineTransport(httpx.HTTPTransport):
    """Ends each request, its answer included, after so many seconds. Proxies of the environment aren't used.

    Parameters
    ----------
    seconds
        Asked at the beginning of each request: how long it may take.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context)
        self._seconds = seconds
        self._deadline = _Deadline()
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=_Backend(self._deadline))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; its body and the answer's are read in the same thread, before the next one is sent."""
        self._deadline.at = time.monotonic() + self._seconds()
        return super().handle_request(request)


class _Deadline(threading.local):
    """When the request of this thread must have ended."""

    at = math.inf

    def left(self, timeout: float | None, late: type[httpcore.TimeoutException]) -> float:
        left = self.at - time.monotonic()
        if left <= 0:
            raise late("the request took too long as a whole")
        return left if timeout is None else min(timeout, left)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers; the deadline holds for all of them together."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for *_, address in addresses:
            left = self._deadline.left(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._backend.connect_tcp(str(address[0]), port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._deadline)
        raise failure


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _CHUNK):
            left = self._deadline.left(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _CHUNK], left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
