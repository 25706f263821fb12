"""Servers that run beside this process and never outlive it."""

import atexit
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

# The guardian ends the server when its standard input reaches its end. The kernel closes that pipe however this process
# ends, be it by SIGKILL. A session of its own keeps a Ctrl-C in the terminal away from the server until then.
_GUARDIAN = """
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -s "$STOP_SIGNAL" "$server"; } 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"; status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A server in a process of its own, which ends at the latest when this one does.

    Parameters
    ----------
    command
        Program and arguments.
    log
        File that takes what the server prints.
    stop_signal
        Name of the signal that asks the server to end.
    user
        System user to run as, when this process is root; None keeps the current one.
    environment
        Variables on top of this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: str = "TERM",
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._guardian = subprocess.Popen(
                ["sh", "-c", _GUARDIAN, "guardian", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {}), "STOP_SIGNAL": stop_signal},
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        atexit.register(self.stop)

    def wait_until(self, ready: Callable[[], bool], *, timeout: float = 30.0) -> None:
        """Return once the server is ready.

        Raises
        ------
        RuntimeError
            It ended, or wasn't ready in time; the message carries the end of its log.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            ended = self._guardian.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"A server {'ended' if ended else 'was not ready in time'}; its log says:\n{tail}")
            time.sleep(0.02)

    def stop(self, *, timeout: float = 15.0) -> None:
        """End the server; return when it is gone. Stopping twice is fine."""
        atexit.unregister(self.stop)
        if self._guardian.stdin:
            self._guardian.stdin.close()
        try:
            self._guardian.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self._guardian.pid, 9)
            self._guardian.wait()


class Server:
    """A server that listens on a port of its own, running inside a ``with`` block; it may also be started before.

    Parameters
    ----------
    command
        Program and arguments, of which the port is the last.
    log, environment
        As ``Process`` takes them.

    Attributes
    ----------
    url
        Its origin.
    """

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = Process([*command, str(self._port)], log=log, environment=environment)

    def __enter__(self) -> Self:
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        """Return once the server answers."""
        self._process.wait_until(lambda: answers(self._port))

    def stop(self) -> None:
        """End the server. Stopping twice is fine."""
        self._process.stop()


def answers(port: int) -> bool:
    """Tell whether something on this machine accepts connections at the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
