"""The words that refusals share: how a value is shown, and what a misspelt name was meant to be."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice

_LONGEST_SHOWN = 80  # characters
_LONGEST_GUESSED = 100  # characters; comparing is quadratic, and names come from outside
_MOST_NAMES = 10
_MISSPELT_EDITS = 2
_LARGEST_SHOWN = 10**18
_SECRET_MARKS = ("eyJ", "sb_")


def shown(value: object) -> str:
    """Return a short literal of ``value`` that is safe to log.

    Containers are named by their type only, long text is cut, and text that looks like a secret pasted into the
    wrong place (a key, a URL with a password) is withheld.
    """
    if isinstance(value, str):
        return _shown_text(value)
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < _LARGEST_SHOWN else "a number of 19 or more digits"
    return f"a {type(value).__name__}"


def looks_like_a_key(value: str) -> bool:
    """Tell whether a text begins like a key of Supabase: a JWT, or ``sb_…``."""
    return value.strip().startswith(_SECRET_MARKS)


def _shown_text(value: str) -> str:
    if "@" in value or any(mark in value for mark in _SECRET_MARKS):
        return "a text that may hold a secret"
    if len(value) > _LONGEST_SHOWN:
        return f"{value[:_LONGEST_SHOWN]!a}… ({len(value)} characters)"
    return ascii(value)


def unknown_names(names: Iterable[object], known: Collection[str], kind: str) -> list[str]:
    """Return a sentence for each of ``names`` that isn't ``known``, with the name that was probably meant.

    Parameters
    ----------
    names
        What was found; at most ten unknown ones get a sentence of their own.
    kind
        What a name names: ``parameter``, ``field``.
    """
    unknown = (name for name in names if name not in known)
    faults = [f"{shown(name)} is no {kind}{_guess(name, known)}" for name in islice(unknown, _MOST_NAMES)]
    more = sum(1 for _ in unknown)
    return [*faults, f"and {more} more that are no {kind}"] if more else faults


def misspelt(names: Iterable[str], unset: Collection[str]) -> list[str]:
    """Return those of ``names`` that are within two edits of an ``unset`` one, which they were probably meant to be."""
    return [name for name in names if any(_within_two_edits(name, other) for other in unset)]


def _within_two_edits(one: str, other: str) -> bool:
    """Tell whether inserting, deleting or replacing two characters makes one text of the other."""
    if abs(len(one) - len(other)) > _MISSPELT_EDITS:
        return False
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1] <= _MISSPELT_EDITS


def _guess(name: object, known: Collection[str]) -> str:
    if not isinstance(name, str) or len(name) > _LONGEST_GUESSED:
        return f"; there are {', '.join(known)}"
    close = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
