"""``python -m tests.campaigns [race kill …] [--short] [--seed N]``: carry out campaigns, all of them or by name."""

import argparse
import importlib
import importlib.util
import random
import sys

from tests.campaigns.report import PROVE, Campaign, carry_out

NAMES = ("race", "kill", "faults", "fuzz", "model", "clauses", "deadlock", "alarms")


def load(name: str) -> Campaign:
    """Return the campaign of that name."""
    campaign: Campaign = importlib.import_module(f"tests.campaigns.{name}").CAMPAIGN
    return campaign


def main() -> int:
    """Run what was asked for; the exit status is 1 when a goal was missed."""
    available = [name for name in NAMES if importlib.util.find_spec(f"tests.campaigns.{name}")]
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="campaign", help=f"some of {', '.join(available)}; default: all")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="default: a new one each time")
    options = parser.parse_args()
    if unknown := set(options.names) - set(available):
        parser.error(f"no such campaign: {', '.join(sorted(unknown))}")
    failures = [
        f"{name}: {failure}"
        for name in options.names or available
        for failure in carry_out(load(name), seed=options.seed, short=options.short)
    ]
    print("\n".join(failures) or "All goals were reached.", file=sys.stderr if failures else sys.stdout)
    print(f"The figures are in {PROVE}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
