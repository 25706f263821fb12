"""The short form of the faults: some of them, at 20 %."""

from pathlib import Path

from tests.campaigns.faults import CAMPAIGN
from tests.campaigns.report import carry_out


def test_faults_lose_nothing_and_the_backlog_drains(tmp_path: Path) -> None:
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []
