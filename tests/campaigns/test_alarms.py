"""The short form of the campaign of alarms."""

from pathlib import Path

import pytest

from local.postgres import ROOT
from tests.campaigns.alarms import CAMPAIGN
from tests.campaigns.report import carry_out


def test_no_failure_is_hidden_by_another(tmp_path: Path) -> None:
    if not (ROOT / ".venv-sam/bin/python").exists():
        pytest.skip("SAM's translator isn't installed: make .venv-sam/.ready")
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []
