"""The short form of the model: some plays."""

from pathlib import Path

from tests.campaigns.model import CAMPAIGN
from tests.campaigns.report import carry_out


def test_the_system_agrees_with_a_model_of_a_few_lines(tmp_path: Path) -> None:
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []
