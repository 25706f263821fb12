"""The short form of the campaign of deadlocks, control included."""

from pathlib import Path

from tests.campaigns.deadlock import CAMPAIGN
from tests.campaigns.report import carry_out


def test_no_transaction_is_a_deadlocks_victim(tmp_path: Path) -> None:
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []
