"""SQL in named blocks, each with a line of description where its name doesn't say enough."""

import re
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


def load(name: str) -> dict[str, str]:
    """Return the statements of ``<name>.sql`` by the names of their blocks."""
    text = files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return {block: statement.strip().rstrip(";") for block, statement in _BLOCK.findall(text)}
