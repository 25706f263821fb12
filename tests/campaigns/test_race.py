"""The short form of the race, controls included."""

from pathlib import Path

from tests.campaigns.race import CAMPAIGN
from tests.campaigns.report import carry_out


def test_no_save_is_lost_and_the_controls_lose_some(tmp_path: Path) -> None:
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []
