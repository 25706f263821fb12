"""Run uv with the package index that pip is configured for; uv doesn't read pip's configuration."""

import ast
import os
import subprocess
import sys
from pathlib import Path

_SECTIONS = ("global", "install", ":env:")  # of pip's settings, the stronger ones later


def pip_settings() -> dict[str, str]:
    """Return pip's options for `pip install`, from its files and the environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    found: dict[tuple[int, str], str] = {}
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in _SECTIONS:
            found[_SECTIONS.index(section), option] = " ".join(str(ast.literal_eval(value)).split())
    return {option: found[rank, option] for rank, option in sorted(found)}


def translate(pip: dict[str, str]) -> dict[str, str]:
    """Return uv's variables that mean the same as pip's options."""
    variables = {
        "UV_DEFAULT_INDEX": pip.get("index-url"),
        "UV_INDEX": pip.get("extra-index-url"),
        # As pip chooses among several indexes. Whatever is installed is checked against its hash.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": pip.get("find-links", "").replace(" ", ","),
        "UV_NO_INDEX": pip.get("no-index"),
        "UV_INSECURE_HOST": pip.get("trusted-host"),
        "UV_HTTP_TIMEOUT": pip.get("default-timeout", pip.get("timeout")),
        "SSL_CERT_FILE": pip.get("cert"),
        "HTTPS_PROXY": pip.get("proxy"),
    }
    return {name: value for name, value in variables.items() if value}


if __name__ == "__main__":
    uv = str(Path(sys.executable).with_name("uv"))
    # What is set for uv itself is stronger.
    os.execve(uv, [uv, *sys.argv[1:]], translate(pip_settings()) | os.environ)
