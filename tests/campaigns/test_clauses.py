"""The short form of the clauses: one of them, and whether the others still stand where they are looked for."""

from pathlib import Path

import pytest

from local.postgres import ROOT
from tests.campaigns.clauses import CAMPAIGN, CLAUSES, Clause
from tests.campaigns.report import carry_out


def test_a_clause_that_is_taken_away_is_missed(tmp_path: Path) -> None:
    assert carry_out(CAMPAIGN, seed=1, short=True, path=tmp_path / "prove.json") == []


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_a_clause_stands_once(clause: Clause) -> None:
    assert (ROOT / clause.file).read_text().count(clause.text) == 1
