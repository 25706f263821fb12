"""Every pair of failures, one beside and one after the other: each reaches a subscriber in its time.

The alarms are those of the translated template, evaluated as CloudWatch does (`tests.infrastructure.alarms`).
"""

import json
import random
import subprocess
from dataclasses import dataclass

from local.postgres import ROOT
from tests.campaigns.report import Figures, missed
from tests.infrastructure.alarms import messages
from tests.infrastructure.failures import DAY, GAPS, PAIRS, healthy, hidden

_MONTHS = 6


@dataclass(frozen=True)
class Alarms:
    """The campaign."""

    name: str = "alarms"

    def run(self, seed: int, short: bool) -> Figures:
        """Try all pairs, and months in which all is well; in the short form a few, and a week."""
        command = [".venv-sam/bin/python", "tests/infrastructure/translate.py", "template.yaml", "eu-central-1"]
        template = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
        days = range((7 if short else 30 * _MONTHS) * DAY)
        pairs = random.Random(seed).sample(PAIRS, 3) if short else PAIRS
        silent = {
            f"{first}, {how} {second}": ", ".join(names)
            for first, second in pairs
            for how, gap in GAPS.items()
            if (names := hidden(template, first, second, gap))
        }
        return {
            "pairs": len(pairs) * len(GAPS),
            "unreached": len(silent),
            "healthy_days": len(days) // DAY,
            "false_messages": len(messages(template, healthy(days), days)),
            "found": silent,
        }

    def goals(self, figures: Figures) -> list[str]:
        """No failure is hidden, and nobody is woken for nothing."""
        return missed(figures, {"unreached": "== 0", "false_messages": "== 0", "pairs": "> 0"})


CAMPAIGN = Alarms()
