"""Faults on demand: what servers, gateways and networks do to a request."""

import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum

from flask import Response, g, request

from local.storage_emulator import errors
from local.storage_emulator.stats import Stats


class Fault(StrEnum):
    """The kinds of faults."""

    TIMEOUT_BEFORE = "timeout_before"
    """No answer comes, and nothing was done."""
    TIMEOUT_AFTER = "timeout_after"
    """No answer comes, but the operation was done."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """429, nothing done."""
    INTERNAL = "internal"
    """500, nothing done."""
    DATABASE_TIMEOUT = "database_timeout"
    """544, nothing done."""
    SLOW_DOWN = "slow_down"
    """503 in the body of a 400, nothing done."""
    BAD_GATEWAY = "bad_gateway"
    """A gateway's HTML with 502, nothing done."""
    CUT = "cut"
    """Done, but the connection breaks in the middle of the answer."""
    EMPTY_ANSWER = "empty_answer"
    """A removal is done, but answers ``[]``."""
    HALF = "half"
    """A removal is done for the first half of its names, and answers 500."""


_REMOVAL_ONLY = frozenset({Fault.EMPTY_ANSWER, Fault.HALF})
_REFUSALS: Mapping[Fault, Callable[[], errors.StorageError]] = {
    Fault.TOO_MANY_CONNECTIONS: errors.too_many_connections,
    Fault.INTERNAL: errors.internal,
    Fault.DATABASE_TIMEOUT: errors.database_timeout,
    Fault.SLOW_DOWN: errors.slow_down,
}
_GATEWAY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


class Faults:
    """Decides which request suffers what; one request suffers one fault at most.

    ``configure`` takes the JSON of ``PUT /_control/faults``:

    ============== ========= =================================================================================
    field          default   meaning
    ============== ========= =================================================================================
    probabilities  {}        fault to probability; their sum is at most 1
    seed           0         the same seed and the same order of requests give the same faults
    operations     null      names of the operations that suffer, as ``/_control/stats`` counts them; null: all
    poisoned_names []        a removal answers 500 when it comes to the transaction with such a name
    latency_ms     0         every operation takes at least that much longer
    hang_seconds   30        how long a request without an answer keeps its connection
    ============== ========= =================================================================================
    """

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._lock = threading.Lock()
        self._released = threading.Event()
        self.configure()

    def configure(
        self,
        *,
        probabilities: Mapping[str, float] | None = None,
        seed: int = 0,
        operations: Collection[str] | None = None,
        poisoned_names: Collection[str] = (),
        latency_ms: float = 0,
        hang_seconds: float = 30,
    ) -> None:
        """Replace the configuration, and end the hanging requests of the old one."""
        with self._lock:
            self._released.set()
            self._released = threading.Event()
            self._probabilities = {Fault(kind): float(p) for kind, p in (probabilities or {}).items()}
            self._random = random.Random(seed)
            self._operations = operations
            self._poisoned = frozenset(poisoned_names)
            self._latency = latency_ms / 1000
            self._hang_seconds = hang_seconds

    def around(self, operation: str, act: Callable[[], Response]) -> Response:
        """Run an operation, or not, and answer, or not."""
        suffers = self._operations is None or operation in self._operations
        if suffers and self._latency:
            time.sleep(self._latency)
        fault = self._draw(operation) if suffers else None
        if fault is None:
            return act()
        self._stats.count("faults", [fault])
        return self._inject(fault, act)

    def share(self, names: Sequence[str]) -> Sequence[str]:
        """Return the names that a removal gets to: all of them, unless it was drawn to break in the middle."""
        return names[: len(names) // 2] if g.get("half") else names

    def check_poison(self, names: Sequence[str]) -> None:
        """Raise if the server can't stomach one of these names."""
        if not self._poisoned.isdisjoint(names):
            self._stats.count("faults", ["poisoned"])
            raise errors.internal()

    def _draw(self, operation: str) -> Fault | None:
        with self._lock:
            if not self._probabilities:
                return None
            draw = self._random.random()
            for fault, probability in self._probabilities.items():
                if draw < probability:
                    return None if fault in _REMOVAL_ONLY and operation != "remove" else fault
                draw -= probability
            return None

    def _inject(self, fault: Fault, act: Callable[[], Response]) -> Response:
        if fault in _REFUSALS:
            refusal = _REFUSALS[fault]()
            raise refusal
        if fault is Fault.TIMEOUT_BEFORE:
            return self._hang()
        if fault is Fault.BAD_GATEWAY:
            return Response(_GATEWAY_PAGE, 502, content_type="text/html")
        g.half = fault is Fault.HALF
        answer = act()
        match fault:
            case Fault.TIMEOUT_AFTER:
                return self._hang()
            case Fault.EMPTY_ANSWER:
                return Response("[]", content_type=answer.content_type)
            case Fault.HALF:
                raise errors.internal()
            case _:
                return _cut(answer)

    def _hang(self) -> Response:
        self._released.wait(self._hang_seconds)
        _break_connection()
        return Response()


def _cut(answer: Response) -> Response:
    content = answer.get_data()

    def half() -> Iterator[bytes]:
        yield content[: len(content) // 2]
        _break_connection()

    cut = Response(half(), answer.status_code, content_type=answer.content_type)
    cut.content_length = len(content)
    return cut


def _break_connection() -> None:
    connection: socket.socket = request.environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)
