"""A built function under Lambda's own Runtime Interface Emulator: the real runtime client, without Docker."""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from local.postgres import ROOT
from local.process import answers, free_port

_LOCK = ROOT / "requirements/sam.txt"
# What the managed runtime brings: the runtime client, boto3, and all that they need.
_RUNTIME = frozenset(
    {"awslambdaric", "simplejson", "snapshot-restore-py", "boto3", "botocore", "jmespath", "python-dateutil"}
    | {"s3transfer", "six", "urllib3"}
)


class FunctionError(Exception):
    """The function raised; Lambda's own account of it.

    Parameters
    ----------
    answer
        ``errorType``, ``errorMessage`` and more.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.kind = str(answer.get("errorType", ""))
        super().__init__(str(answer.get("errorMessage", answer)))


def find_emulator() -> Path | None:
    """Return the emulator that the aws-sam-cli wheel carries, for this machine; None without ``.venv-sam``."""
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    found = (ROOT / ".venv-sam").glob(f"lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}")
    return next(iter(sorted(found)), None)


def find_python(version: str = "3.13") -> Path | None:
    """Return an interpreter of this version that really runs, from PATH or pyenv, or None."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(home.glob(f"versions/{version}*/bin/python{version}"), reverse=True)
    for candidate in candidates:
        # pyenv's shims are on PATH for versions that aren't switched on, and then only complain.
        probe = subprocess.run([candidate, "-c", ""], capture_output=True, check=False)
        if probe.returncode == 0:
            return candidate
    return None


def install_runtime(python: Path, target: Path) -> Path:
    """Install what the managed runtime brings into ``target``, as `requirements/sam.txt` locks it."""
    blocks = ("\n" + _LOCK.read_text()).split("\n")
    lines, wanted = [], False
    for line in blocks:
        if line and not line.startswith((" ", "#")):
            wanted = line.split("==")[0].split("[")[0] in _RUNTIME
        if wanted and not line.lstrip().startswith("#"):
            lines.append(line)
    target.mkdir(parents=True, exist_ok=True)
    requirements = target / "requirements.txt"
    requirements.write_text("\n".join(lines) + "\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command: list[str | Path] = [python, "-m", "pip", "install", *options]
    command += ["--target", target, "--requirement", requirements]
    subprocess.run(command, check=True)
    return target


class RuntimeEmulator:
    """One function, warm from its first invocation on.

    Parameters
    ----------
    function_dir
        The built function, with ``app.py``.
    layers
        Built layers, each with a ``python`` folder, and folders to import from.
    python
        The interpreter of the function's runtime.
    environment
        The function's variables; nothing else of this process's environment reaches it.
    """

    def __init__(
        self,
        function_dir: Path,
        layers: Sequence[Path],
        python: Path,
        environment: Mapping[str, str],
        *,
        log: Path,
        timeout_seconds: int = 60,
    ) -> None:
        emulator = find_emulator()
        if emulator is None:
            raise FileNotFoundError("The Runtime Interface Emulator comes with .venv-sam: make tools")
        self._port, api_port = free_port(), free_port()
        self.log = log
        self._timeout = timeout_seconds
        folders = [path / "python" if (path / "python").is_dir() else path for path in layers]
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "LAMBDA_TASK_ROOT": str(function_dir),
            "AWS_LAMBDA_FUNCTION_NAME": function_dir.name,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_seconds),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            **environment,
        }
        command: list[str | Path] = [emulator, "--log-level", "info"]
        command += ["--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"]
        command += ["--runtime-api-address", f"127.0.0.1:{api_port}"]
        command += [python, "-m", "awslambdaric", "app.lambda_handler"]
        with log.open("wb") as output:
            # A group of its own, for the emulator's child outlives it.
            self._process = subprocess.Popen(
                command, cwd=function_dir, env=variables, stdout=output, stderr=output, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the function's answer to an event.

        Raises
        ------
        FunctionError
            The function raised, or ended.
        """
        url = f"http://127.0.0.1:{self._port}/2015-03-31/functions/function/invocations"
        response = httpx.post(url, json=event, timeout=self._timeout + 10)
        answer: dict[str, Any] = json.loads(response.content)
        # The emulator has no X-Amz-Function-Error header.
        if "errorMessage" in answer:
            raise FunctionError(answer)
        return answer

    def output(self) -> str:
        """Return what emulator and function have printed so far."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """End the emulator and its child. Stopping twice is fine."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait(self) -> None:
        for _ in range(500):
            if answers(self._port):
                return
            try:
                status = self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"The emulator ended with {status}: {self.output()[-2000:]}")
        raise RuntimeError("The emulator doesn't listen")
