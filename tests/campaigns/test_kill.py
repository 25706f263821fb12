"""The short form of the killing: some of the boundaries."""

from pathlib import Path

from tests.campaigns.kill import CAMPAIGN
from tests.campaigns.report import carry_out


def test_the_next_cycles_finish_what_a_killed_one_began(tmp_path: Path) -> None:
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []
