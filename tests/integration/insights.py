"""CloudWatch Logs Insights, as far as template.yaml's queries use it; whatever else a query says is an error.

Fields are those that Insights finds by itself: each of a JSON line's (nested ones joined by dots), and of a platform's
REPORT line those that AWS documents for Lambda ("Supported logs and discovered fields"). A field that a line doesn't
have is empty there.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
_Test = Callable[[Row], bool]
_Value = Callable[[Row], Any]
_Aggregate = Callable[[Sequence[Row]], Any]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<regex>/(?:[^/\\]|\\.)*/) |
        (?P<string>'[^']*'|"[^"]*") |
        (?P<number>\d+(?:\.\d+)?)(?![\w]) |
        (?P<span>\d+[smhd])\b |
        (?P<name>@?[A-Za-z_][\w.]*) |
        (?P<sign>!=|<=|>=|[=<>()\[\],*/])
    )""",
    re.VERBOSE,
)
_REPORT = {
    "@duration": r"\tDuration: ([\d.]+) ms",
    "@billedDuration": r"Billed Duration: ([\d.]+) ms",
    "@memorySize": r"Memory Size: ([\d.]+) MB",
    "@maxMemoryUsed": r"Max Memory Used: ([\d.]+) MB",
}
_BYTES = {"@memorySize", "@maxMemoryUsed"}


class UnknownConstructError(Exception):
    """The query says something that this module doesn't know."""


def events(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return the events of log lines, in their order, with the fields that Insights finds in them."""
    return [_event(line, number) for number, line in enumerate(lines)]


def _event(line: str, number: int) -> dict[str, Any]:
    event: dict[str, Any] = {"@message": line, "@timestamp": number}
    if line.startswith("{"):
        event.update(_flat(json.loads(line)))
    if kind := re.match(r"(START|END|REPORT) RequestId: (\S+)", line):
        event.update({"@type": kind[1], "@requestId": kind[2]})
        for name, pattern in _REPORT.items():
            if found := re.search(pattern, line):
                event[name] = float(found[1]) * (1_000_000 if name in _BYTES else 1)
    return event


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    parts: Any
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        if value is not None:
            yield path, value
        return
    for key, part in parts:
        yield from _flat(part, f"{path}.{key}" if path else str(key))


@dataclass(frozen=True)
class Table:
    """What a query shows: the names of its columns, and its rows. A value that a row doesn't have is empty."""

    columns: Sequence[str]
    rows: Sequence[Row]


def run(query: str, events: Sequence[Row]) -> Table:
    """Run a query over events.

    Raises
    ------
    UnknownConstructError
        The query has something that isn't known here.
    """
    rows: list[Row] = list(events)
    columns: list[str] = []
    for text in _commands(query):
        command = _Command(text)
        match command.name():
            case "fields":
                columns += command.names()
            case "filter":
                test = command.condition()
                rows = [row for row in rows if test(row)]
            case "parse":
                rows = command.parsed(rows)
            case "stats":
                columns, rows = command.stats(rows)
            case "sort":
                name, is_descending = command.order()
                rows = sorted(rows, key=lambda row: row.get(name, -1), reverse=is_descending)
            case "limit":
                rows = rows[: int(command.take("number"))]
            case other:
                raise UnknownConstructError(f"command {other}")
        command.end()
    return Table(columns, rows)


def source(query: str) -> tuple[str, str]:
    """Split a dashboard's query into the log group that it names and the rest."""
    found = re.fullmatch(r"SOURCE '([^']+)' \| (.*)", query, re.DOTALL)
    if not found:
        raise UnknownConstructError(f"no source: {query}")
    return found[1], found[2]


def _commands(query: str) -> list[str]:
    """Split a query at its pipes; those within a regular expression or a text don't count."""
    parts = re.findall(r"(?:/(?:[^/\\\n]|\\.)*/|'[^']*'|\"[^\"]*\"|[^|])+", query)
    return [part.strip() for part in parts]


class _Command:
    """One command, read from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    # -- words -----------------------------------------------------------------------------------------------------

    def _next(self) -> tuple[str, str]:
        found = _TOKEN.match(self._text, self._at)
        return (found.lastgroup or "", found[found.lastgroup or 0]) if found else ("", "")

    def take(self, kind: str, *accepted: str) -> str:
        """Take the next word, which has to be of that kind."""
        found, word = self._next()
        if found != kind or (accepted and word.lower() not in accepted):
            raise UnknownConstructError(f"{self._text!r} at {self._at}: {word!r}, not {accepted or kind}")
        match = _TOKEN.match(self._text, self._at)
        assert match
        self._at = match.end()
        return word

    def _took(self, kind: str, *accepted: str) -> bool:
        found, word = self._next()
        if found != kind or word.lower() not in accepted:
            return False
        self.take(kind)
        return True

    def end(self) -> None:
        """Make sure that nothing is left."""
        if rest := self._text[self._at :].strip():
            raise UnknownConstructError(f"{self._text!r}: {rest!r} is left")

    def name(self) -> str:
        """Take a name."""
        return self.take("name")

    def names(self) -> list[str]:
        """Take names, with commas between them."""
        found = [self.name()]
        while self._took("sign", ","):
            found.append(self.name())
        return found

    # -- commands --------------------------------------------------------------------------------------------------

    def order(self) -> tuple[str, bool]:
        """Take what ``sort`` sorts by."""
        return self.name(), self.take("name", "asc", "desc").lower() == "desc"

    def parsed(self, rows: Sequence[Row]) -> list[Row]:
        """Take a field and a pattern; return the rows with what its groups have found."""
        field, pattern = self.name(), re.compile(_python(self.take("regex")))
        return [{**row, **_found(pattern, row.get(field))} for row in rows]

    def condition(self) -> _Test:
        """Take a condition; ``and`` binds closer than ``or``."""
        tests = [self._all()]
        while self._took("name", "or"):
            tests.append(self._all())
        return lambda row: any(test(row) for test in tests)

    def _all(self) -> _Test:
        tests = [self._one()]
        while self._took("name", "and"):
            tests.append(self._one())
        return lambda row: all(test(row) for test in tests)

    def _one(self) -> _Test:
        if self._took("sign", "("):
            test = self.condition()
            self.take("sign", ")")
            return test
        name = self.name()
        if name == "ispresent":
            self.take("sign", "(")
            field = self.name()
            self.take("sign", ")")
            return lambda row: row.get(field) is not None
        if self._took("name", "like"):
            pattern = re.compile(_python(self.take("regex")))
            return lambda row: bool(pattern.search(str(row.get(name, ""))))
        if self._took("name", "in"):
            values = self._list()
            return lambda row: row.get(name) in values
        self.take("sign", "=")
        value = self.take("string")[1:-1]
        return lambda row: row.get(name) == value

    def _list(self) -> list[str]:
        self.take("sign", "[")
        values = [self.take("string")[1:-1]]
        while self._took("sign", ","):
            values.append(self.take("string")[1:-1])
        self.take("sign", "]")
        return values

    def stats(self, rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
        """Take aggregates and what they are grouped by; return the columns and a row for each group."""
        aggregates = dict([self._aggregate()])
        while self._took("sign", ","):
            aggregates.update([self._aggregate()])
        keys: dict[str, _Value] = {}
        if self._took("name", "by"):
            keys.update([self._key()])
            while self._took("sign", ","):
                keys.update([self._key()])
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(tuple(key(row) for key in keys.values()), []).append(row)
        table: list[Row] = []
        for group, members in groups.items():
            figures = {name: aggregate(members) for name, aggregate in aggregates.items()}
            table.append({**dict(zip(keys, group, strict=True)), **figures})
        return [*keys, *aggregates], table

    def _aggregate(self) -> tuple[str, _Aggregate]:
        function = self.take("name", "count", "sum", "max", "min", "avg").lower()
        self.take("sign", "(")
        field = "*" if self._took("sign", "*") else self.name()
        if field == "*" and function != "count":
            raise UnknownConstructError(f"{function}(*)")
        self.take("sign", ")")
        divisor = float(self.take("number")) if self._took("sign", "/") else 1
        self.take("name", "as")
        return self.name(), lambda rows: _figure(function, field, divisor, rows)

    def _key(self) -> tuple[str, _Value]:
        name = self.name()
        if name != "bin":
            return name, lambda row: row.get(name)
        self.take("sign", "(")
        span = self.take("span")
        self.take("sign", ")")
        return f"bin({span})", lambda _: "the only one"  # a test's log is of one moment


def _figure(function: str, field: str, divisor: float, rows: Sequence[Row]) -> float | None:
    if field == "*":
        return len(rows)
    values = [row[field] for row in rows if row.get(field) is not None]
    if function == "count":
        return len(values)
    if not values:
        return None
    numbers = [float(value) for value in values]
    made = {"sum": sum(numbers), "max": max(numbers), "min": min(numbers), "avg": sum(numbers) / len(numbers)}
    return made[function] / divisor


def _python(regex: str) -> str:
    """Return a regular expression between slashes as Python writes it."""
    return regex[1:-1].replace("(?<", "(?P<")


def _found(pattern: re.Pattern[str], value: Any) -> dict[str, Any]:
    match = pattern.search(str(value)) if value is not None else None
    return match.groupdict() if match else {}
