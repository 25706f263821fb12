"""README's table of parameters is the one in the code."""

from local.postgres import ROOT
from storage_cleanup.config.parameters import PARAMETERS, Parameter


def row(parameter: Parameter) -> str:
    default = "none" if parameter.default is None else f"`{parameter.default}`"
    secret = " SecureString." if parameter.secret else ""
    return f"| `{parameter.name}` | {default} | {parameter.meaning}{secret} | {parameter.accepts} |"


def test_the_table_of_parameters_is_the_one_in_the_code() -> None:
    head = ["| name | default | meaning | accepts |", "|---|---|---|---|"]
    table = "\n".join([*head, *map(row, PARAMETERS.values())])
    assert table in (ROOT / "README.md").read_text(encoding="utf-8"), f"README.md needs this table:\n{table}"
