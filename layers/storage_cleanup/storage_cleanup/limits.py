"""Every limit that has a name and is used in more than one room."""

MAX_INTERVAL_MINUTES = 7 * 24 * 60
MAX_AGE_MINUTES = 365 * 24 * 60
MAX_DELETIONS = 10_000_000
MAX_RETENTION_HOURS = 365 * 24

LONGEST_NAME = 1024
"""Bytes (and characters: all legal ones are ASCII) of the longest name of an object."""

LONGEST_URL = 8192
"""Bytes of the longest URL that is read: three for each of a name's, and as many for host and token."""
