"""Every limit that has a name and matters to more than the line where it stands; each name or comment has the unit."""

from datetime import timedelta
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

# What a call to PostgreSQL may take.
STATEMENT_TIMEOUT: Final = timedelta(seconds=30)
LOCK_TIMEOUT: Final = timedelta(seconds=5)
STATEMENT_GRACE_SECONDS: Final = 5
"""How much later than on the server a statement times out here: what the server says is more than silence."""
CONNECT_SECONDS: Final = 10
SHORTEST_TO_CONNECT_SECONDS: Final = 1.5
"""With less, nobody tries: psycopg takes two seconds at least to find out that nothing answers."""
SHORTEST_QUESTION_SECONDS: Final = 0.5
"""With less, nobody asks: the statement would only be cancelled."""
SHORTEST_COMPARISON: Final = timedelta(seconds=10)
LONGEST_COMPARISON: Final = timedelta(minutes=5)
"""The daily comparison reads both tables, so it may take longer than other statements."""

# What a cycle takes at a time.
PAGE_SIZE: Final = 500
"""Candidates that are looked at together, and names in one request to Storage: the server's own transaction size, so
that a request succeeds or fails as a whole."""
PAGES_AHEAD: Final = 2
"""Pages that are claimed while others are removed: enough for requests that end together."""
LEASE_SECONDS: Final = 60.0
"""How long after it was asked for a claim may be acted on. Less than the two minutes after which another run takes a
silent one for dead: who was asleep for that long must not ask for what somebody else may have finished since."""
MOST_BATCHES_OF_ROWS: Final = 8
"""Batches that may wait for their rows to be deleted, so that memory doesn't grow with the backlog."""
MOST_REQUESTS: Final = 8
"""Requests to Storage in flight, where the server bears as many."""
PUSHBACK_SECONDS: Final = 0.5
"""What is pushed back so soon after a decrease was sent before it, and says nothing about the new pace."""
SWITCH_SECONDS: Final = 1.0
"""The longest that a run waits without looking whether it has to stop."""
SUCCESS_MINUTES: Final = 15
"""How often `schedule_sync` counts the hours since each function's last success, counted from the full hour."""
SWITCH_READ_SECONDS: Final = 2.0
"""How often a run reads the kill switch: a drain's 16 workers ask 8 times a second; Parameter Store takes 40."""
SWITCH_STALE_SECONDS: Final = 6.0
"""How old what was read may be while Parameter Store throttles; with the reads that follow, within the ten seconds."""
REFERENCE_SECONDS: Final = 5.0
"""How old the count of saved assets may be when something is claimed."""
RESERVE_SECONDS: Final = 30.0
"""Of an invocation's time, for what is under way: finishing requests, settling them, closing the run."""
KEEP_HISTORY: Final = timedelta(days=90)
"""How long finished ledger rows are kept, where the function's environment doesn't say."""

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


class HttpPatience(NamedTuple):
    """How long a request to Storage may take: to connect, for a single read or write, and as a whole."""

    connect_seconds: float
    read_seconds: float
    total_seconds: float


STORAGE: Final = HttpPatience(connect_seconds=5, read_seconds=20, total_seconds=30)
"""As a whole, the server's own statement timeout."""

ASKING_STORAGE: Final = HttpPatience(connect_seconds=3, read_seconds=8, total_seconds=10)
"""For health, which only asks for the buckets."""

IN_A_CYCLE: Final = Patience(connect_seconds=2, read_seconds=3, attempts=2)
"""Short, because the kill switch is read in the middle of a run and has to work within ten seconds."""
CREATING: Final = Patience(connect_seconds=3, read_seconds=5, attempts=8)
"""For a whole tree of parameters, of which Parameter Store takes three a second."""
WATCHING: Final = Patience(connect_seconds=3, read_seconds=5, attempts=2)
DELIVERING: Final = Patience(connect_seconds=3, read_seconds=10, attempts=3)

SETUP_HOURS: Final = 24
"""How long after its first deploy a stage may be without URL, key and database."""
