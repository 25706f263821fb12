"""Every limit that has a name and matters to more than the line where it stands; each name or comment has the unit."""

from typing import Final, NamedTuple

# What parameters and events accept.
MAX_INTERVAL_MINUTES: Final = 7 * 24 * 60
MAX_AGE_MINUTES: Final = 365 * 24 * 60
MAX_RETENTION_HOURS: Final = 365 * 24
MAX_DELETIONS: Final = 10_000_000
"""Deletions of one cycle."""
MAX_DRAIN_DELETIONS: Final = 1_000_000_000
"""Deletions of one drain, all of its cycles together."""
MAX_DRAIN_WORKERS: Final = 16
MAX_BUCKET_LENGTH: Final = 100
"""Characters, as Storage has it."""
MIN_PREFIX_LENGTH: Final = 3
"""Characters: shorter ones would match what others keep in /tmp."""
MAX_INTEGER_DIGITS: Final = 12

LONGEST_NAME: Final = 1024
"""Bytes (and characters: all legal ones are ASCII) of the longest name of an object."""
LONGEST_URL: Final = 8192
"""Bytes of the longest URL that is read: three for each of a name's, and as many for host and token."""

# What a drain may be.
MAX_DRAIN_CYCLES: Final = 2_000
"""Cycles of one drain: each takes 9 of the 25,000 events that an execution may have, and a retry takes 3."""
MAX_DRAIN_CYCLE_DELETIONS: Final = 50_000
"""Deletions that a cycle surely finishes in its time, so that no part of the budget ends with an invocation."""

# What watching the schedule takes for granted.
SCHEDULE_ALLOWANCE_MINUTES: Final = 2
"""EventBridge starts a rate's event within its minute, and a figure is visible within another."""
MAX_LOOK_BACK_DAYS: Final = 14
"""CloudWatch keeps figures by the minute for 15 days."""
INVOCATION_SECONDS: Final = 900
"""The longest that an invocation may take: Lambda's own limit, and the timeout of the function cleanup."""

# Reports.
REPORT_RESERVE_SECONDS: Final = 10
"""Of an invocation's time, for drawing and delivering a report."""
MAX_SUBJECT_LENGTH: Final = 100
"""Characters; SNS refuses more."""


class Patience(NamedTuple):
    """How long a call to AWS may take; attempts count the first one."""

    connect_seconds: int
    read_seconds: int
    attempts: int


IN_A_CYCLE: Final = Patience(connect_seconds=2, read_seconds=3, attempts=2)
"""Short, because the kill switch is read in the middle of a run and has to work within ten seconds."""
WATCHING: Final = Patience(connect_seconds=3, read_seconds=5, attempts=2)
DELIVERING: Final = Patience(connect_seconds=3, read_seconds=10, attempts=3)
