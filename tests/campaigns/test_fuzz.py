"""The short form of the fuzzing: a few hundred examples."""

from pathlib import Path

from tests.campaigns.fuzz import CAMPAIGN
from tests.campaigns.report import carry_out


def test_nothing_odd_is_unhandled_or_escapes(tmp_path: Path) -> None:
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []
