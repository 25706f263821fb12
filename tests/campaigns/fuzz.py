"""URLs, events, parameters, file trees and metadata of any content: understood, or refused in order, and nothing else.

Hypothesis makes the examples. A failing one isn't raised but noted, so that a run counts all kinds of failures; the
first of each kind are among the figures, shrunk by nothing but their own smallness.
"""

import json
import os
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID, uuid4

import psycopg
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from psycopg import errors as pg

from local.postgres import Database, Postgres
from local.stack import workspace
from storage_cleanup.cleanup.options import resolve
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.cleanup.phases.temp_files import clean_temp_files
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ConfigurationError, RequestError
from storage_cleanup.events.cleanup import parse_cleanup_event
from storage_cleanup.storage.paths import LEGAL_IN_NAMES, SHAPES, StorageObject, parse_storage_url
from tests.campaigns.faults import silence
from tests.campaigns.ground import Ground
from tests.campaigns.report import Figures, missed
from tests.unit.examples import PARAMETERS, jwt

LONG = {"urls": 75_000, "events": 50_000, "parameters": 40_000, "metadata": 30_000, "trees": 10_000}
SHORT = {"urls": 300, "events": 150, "parameters": 150, "metadata": 150, "trees": 60}
BATCH = 500

ORIGIN = "https://abcdefghijklmnopqrst.supabase.co"
BUCKETS = ("images", "videos", "a b+c")


@dataclass
class Notes:
    """What went wrong, by kind, with the shortest examples."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, example: object, problem: object = "") -> None:
        """Take a failure down."""
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        shown.append(f"{example!r:.400} {problem!r:.200}")
        self.examples[kind] = sorted(shown, key=len)[:3]


def explore(strategy: st.SearchStrategy[Any], examine: Callable[[Any], None], count: int, chosen_seed: int) -> int:
    """Examine so many examples of a strategy; return how many there were in the end."""
    examined = 0

    @seed(chosen_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        nonlocal examined
        examined += 1
        examine(example)

    run()
    return examined


# -- URLs --------------------------------------------------------------------------------------------------------------

_any_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_name_characters = st.sampled_from(sorted(LEGAL_IN_NAMES))
_names = st.one_of(
    st.text(_name_characters, min_size=1, max_size=30),
    st.text(_name_characters, min_size=1, max_size=30),
    st.text(_name_characters, min_size=1, max_size=30),
    st.lists(st.sampled_from(["a", "b c", ".", "..", "", "x?y", "z&t=1", "+", "ü", "%2F"]), max_size=5).map("/".join),
    # Letters that an escape could be mistaken for, at the end of a name and, as a bucket, at the beginning of a path.
    st.sampled_from([f"clip.{letter}" for letter in "abefnrtuvx0"]),
    _any_text,
)


def encoded(text: str, how: str, chosen: int) -> str:
    """Return a text with some of its characters percent-encoded, by the rules or against them."""
    match how:
        case "usual":
            return quote(text, safe="/!*'()&$@=;:+,")
        case "all":
            return "".join(f"%{byte:02X}" for byte in text.encode())
        case "twice":
            return quote(quote(text))
        case "lower":
            return "".join(f"%{byte:02x}" if byte % 3 else chr(byte) for byte in text.encode("ascii", "replace"))
        case "some":
            return "".join(quote(one, safe="") if chosen >> place % 24 & 1 else one for place, one in enumerate(text))
        case _:
            return text


_HOST = "abcdefghijklmnopqrst.supabase.co"
_encodings = st.tuples(
    st.sampled_from(["not", "not", "usual", "usual", "all", "some", "some", "twice", "lower"]), st.integers(0, 1 << 24)
)
_origins = st.sampled_from(
    [
        *(*[ORIGIN] * 12, *[""] * 8, f"//{_HOST}", f"HTTPS://{_HOST.upper()}:443", f"https://{_HOST}:"),
        *("https://abcdefghijklmnopqrst.storage.supabase.co", f"http://{_HOST}", f"https://u:p@{_HOST}"),
        *("https://elsewhere.example", "ftp://x", "https:", "javascript:"),
    ]
)
_prefixes = st.sampled_from(
    [*["/storage/v1/"] * 12, "/", "", "storage/v1/", "//storage/v1/", "/storage/v1//", "/STORAGE/v1/"]
)
_shapes = st.sampled_from([*SHAPES, *SHAPES, *SHAPES, "", "object/public/object/", "render/", "object/list/"])
_buckets = st.sampled_from([*BUCKETS * 6, "secrets", "public", "sign", ""])
_slashes = st.sampled_from([*["/"] * 12, "", "//"])
_queries = st.sampled_from(
    [
        *("", "", "", "?token=t", "?token=a.b-c", "?", "?width=1&token=t", "?a?token=t", "?token=?token=", "#"),
        *("#a?token=t", "?token=t#a", "?token=t?token=t", "?token=t#?token=t"),
    ]
)
_margins = st.sampled_from([*[""] * 12, " ", "\n\t ", "\n", " " * 9000])


def assembled(parts: tuple[str, str, str], place: tuple[str, str, str], end: tuple[str, str, str], how: Any) -> str:
    """Build a URL of parts, most of them right."""
    origin, prefix, shape = parts
    bucket, slash, name = place
    before, query, after = end
    if how[1] % 8 == 0:
        bucket = encoded(bucket, *how)
    return f"{before}{origin}{prefix}{shape}{bucket}{slash}{encoded(name, *how)}{query}{after}"


_urls = st.builds(
    assembled,
    st.tuples(_origins, _prefixes, _shapes),
    st.tuples(_buckets, _slashes, _names),
    st.tuples(_margins, _queries, _margins),
    _encodings,
)


class UrlTarget:
    """The parser answers everything, and SQL's ``object_key`` agrees with it on everything that it accepts.

    It agrees in every version of PostgreSQL, about the URL and about the plain path that an asset may have instead.
    """

    strategy = st.one_of(_urls, _urls, _urls, _urls, _any_text)

    def __init__(self, connections: Sequence[psycopg.Connection[Any]], notes: Notes) -> None:
        self._connections, self._notes = connections, notes
        self._waiting: list[tuple[str, str | None]] = []
        self.accepted = 0

    def examine(self, url: str) -> None:
        """Parse one, and keep it for the database."""
        try:
            target = parse_storage_url(url, origin=ORIGIN, buckets=BUCKETS)
        except Exception as error:  # noqa: BLE001 (that is what is looked for)
            self._notes.note("unhandled", url, error)
            return
        key = target.key if isinstance(target, StorageObject) else None
        if isinstance(target, StorageObject):
            self.accepted += 1
            if target.bucket not in BUCKETS or {".", ".."} & set(target.name.split("/")):
                self._notes.note("escapes", url, target)
        self._waiting.append((url, key))
        if len(self._waiting) >= BATCH:
            self.finish()

    def finish(self) -> None:
        """Ask each database about what has gathered."""
        asked = [(url, key) for url, key in self._waiting if key is not None]
        asked += [(key, key) for _, key in asked if "?" not in key and not key.endswith(" ")]
        self._waiting = []
        for connection in self._connections:
            rows = connection.execute(
                "select storage_cleanup.object_key(url) from unnest(%s::text[]) with ordinality as asked (url, place) "
                "order by place",
                ([url for url, _ in asked],),
            ).fetchall()
            for (url, key), (in_sql,) in zip(asked, rows, strict=True):
                if key != in_sql:
                    self._notes.note("disagreements", url, (connection.info.server_version, key, in_sql))


# -- events ------------------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["cleanup", "temp_files", "true", "1", 0, 1, -1, 60, 10**400, "00000000-0000-0000-0000-000000000000"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_manual_fields = {
    "dry_run": st.booleans() | _json,
    "phases": st.lists(st.sampled_from(["temp_files", "storage_files", "render_jobs"]), max_size=4) | _json,
    "max_age_minutes": st.integers(-5, 600_000) | _json,
    "max_deletions": st.integers(-5, 20_000_000) | _json,
    "override": st.uuids().map(str) | _json,
}
_manual = st.fixed_dictionaries({"action": st.just("cleanup")}, optional=_manual_fields)
_scheduled = st.fixed_dictionaries(
    {"detail-type": st.sampled_from(["Scheduled Event", "Other"])},
    optional={
        "source": st.sampled_from(["aws.events", "aws.scheduler", "x"]) | _json,
        "detail": st.sampled_from([{}, "{}", ""]) | _json,
        "action": _json,
    },
)
_odd_fields = st.dictionaries(st.sampled_from(["Dry_run", "dryrun", "max_age", "id", ""]), _json, max_size=1)


class EventTarget:
    """An event is a request that the parameters allow, or a ``RequestError``."""

    strategy = st.tuples(
        st.one_of(_manual, st.builds(lambda event, more: {**event, **more}, _manual, _odd_fields), _scheduled, _json),
        st.booleans(),
        st.booleans(),
    )

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._settings = {
            (dry_run, with_phase): Settings.from_parameters(
                {**PARAMETERS, "dry-run": str(dry_run).lower(), "phases/render-jobs": str(with_phase).lower()}
            )
            for dry_run in (True, False)
            for with_phase in (True, False)
        }
        self.accepted = 0

    def examine(self, example: tuple[Any, bool, bool]) -> None:
        """Read an event, and hold it against the parameters."""
        event, dry_run, with_phase = example
        limits = self._settings[dry_run, with_phase]
        try:
            options = resolve(parse_cleanup_event(event), limits)
        except RequestError as refusal:
            if not refusal.faults:
                self._notes.note("unhandled", event, "no reason")
            return
        except Exception as error:  # noqa: BLE001
            self._notes.note("unhandled", event, error)
            return
        self.accepted += 1
        bold = (
            options.max_age < timedelta(minutes=limits.active.max_age_minutes)
            or options.max_deletions > limits.max_deletions_per_run
            or not options.phases <= limits.phases
            or (limits.dry_run and not options.dry_run)
        )
        if bold and not (options.dry_run or options.override):
            self._notes.note("escapes", event, options)


# -- parameters --------------------------------------------------------------------------------------------------------

SECRET = "hushhush"
_SECRET_PARAMETERS = frozenset({"supabase/service-role-key", "database/url"})
_KEY_MARKS = ("eyJ", "sb_")
"""What a key can be recognised by, wherever it was pasted."""

_values = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *(
                "",
                "true",
                "TRUE",
                "1",
                "0",
                "-1",
                "01",
                "1_000",
                "\uff11",
                "1e3",
                "9" * 5000,
                "testing",
                "production",
                "none",
            ),
            *(
                "images",
                "images,",
                "images,images",
                "images,../x",
                "public",
                "/tmp",
                "/",
                "/tmp/../etc",
                "//tmp",
                "/etc",
            ),
            *(
                "a",
                "...",
                "storage-",
                "st/or",
                "\0",
                "\ud800",
                "https://x.supabase.co",
                "http://x",
                "https://[::1",
                "https://a:b@c",
            ),
            *(f"sb_secret_{SECRET}", f"sb_publishable_{SECRET}", f"eyJ{SECRET}", f"eyJ{SECRET}.{SECRET}.{SECRET}"),
            *(
                f"postgresql://u:{SECRET}@[::1/x",
                f"postgresql://u:{SECRET}@h:99999/x",
                f"postgres://:{SECRET}@",
                f"x{SECRET}",
            ),
            *(
                jwt(role="anon"),
                jwt(role="service_role", exp="x"),
                jwt(role="service_role", exp=1e999),
                jwt(role=["x"]),
            ),
            *(
                jwt(role="service_role", exp=10**400),
                jwt(role="service_role", ref=5),
                "eyJ" + "A" * 10_000 + "..",
                "eyJ.W10.x",
            ),
        ]
    ),
)


def changed(changes: list[tuple[str, str | None]], more: dict[str, str]) -> dict[str, str]:
    """Return a tree of parameters that is right but for some changes; None takes one away."""
    tree = {**PARAMETERS, **{name: value for name, value in changes if value is not None}, **more}
    return {name: value for name, value in tree.items() if (name, None) not in changes}


_changes = st.lists(st.tuples(st.sampled_from(sorted(PARAMETERS)), st.one_of(_values, _values, st.none())), max_size=4)
_more: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}), st.just({}), st.dictionaries(st.text(max_size=20), _values, max_size=1)
)


class ParameterTarget:
    """A tree of parameters becomes settings that are in range, or a ``ConfigurationError`` without secrets in it."""

    strategy = st.builds(changed, _changes, _more)

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.accepted = 0

    def examine(self, tree: dict[str, str]) -> None:
        """Read a tree."""
        try:
            made = Settings.from_parameters(tree)
        except ConfigurationError as refusal:
            misplaced = any(SECRET in value for name, value in tree.items() if name not in _SECRET_PARAMETERS)
            if SECRET in str(refusal) and not misplaced:
                self._notes.note("escapes", tree, refusal)
            return
        except Exception as error:  # noqa: BLE001
            self._notes.note("unhandled", tree, error)
            return
        self.accepted += 1
        sound = (
            made.active.max_age_minutes >= 1
            and made.max_deletions_per_run >= 1
            and all(bucket and "/" not in bucket for bucket in made.buckets)
            and all(path.is_absolute() and len(path.parts) > 1 for path in made.temp_directories)
            and all(len(prefix) >= 3 for prefix in made.temp_prefixes)
            and made.supabase_url.startswith(("https://", "http://"))
        )
        # Whatever was pasted into a list is shown there; nothing else may show a secret.
        without_lists = replace(made, buckets=(), temp_prefixes=(), temp_directories=())
        known = tree.keys() & PARAMETERS.keys() - _SECRET_PARAMETERS  # nothing of the others is read
        pasted = [tree[name] for name in sorted(known) if SECRET in tree[name]]
        if not sound or SECRET in repr(without_lists):
            self._notes.note("escapes", tree, made)
        elif any(value.startswith(_KEY_MARKS) for value in pasted):
            self._notes.note("misplaced_keys", pasted, "a key was taken for something that isn't secret")


# -- file trees --------------------------------------------------------------------------------------------------------

NOW = 2_000_000_000
_AGE = 3600
_file_names = st.one_of(
    st.text(_name_characters, min_size=1, max_size=30),
    st.text(_name_characters, min_size=1, max_size=30),
    st.sampled_from(
        ["storage-a", "storage-b", "mat-debug-c", "storage-", "storage", "other", "..storage-", "storage-..", "-rf"]
    ),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).map(
        lambda text: f"storage-{text}"
    ),
    st.binary(min_size=1, max_size=6)
    .filter(lambda raw: b"/" not in raw and b"\0" not in raw)
    .map(lambda raw: f"storage-{os.fsdecode(raw)}"),
)
_times = st.sampled_from(
    [0, 1, -1, -(2**31), 2**33, NOW, NOW + 5, NOW - _AGE, NOW - _AGE - 1, NOW - _AGE + 1, NOW - 99999]
)
_leaves = st.tuples(
    st.sampled_from(["file", "file", "file", "link", "pipe", "hard link"]),
    _times,
    st.sampled_from(["outside", "outside/canary", ".", "..", "/", "nowhere", "storage-a", "../outside/sub"]),
)
_file_trees = st.recursive(
    st.dictionaries(_file_names, _leaves, max_size=4),
    lambda inner: st.dictionaries(_file_names, _leaves | st.tuples(st.just("directory"), _times, inner), max_size=4),
    max_leaves=8,
)


class Clock(Enum):
    """What time it is when a tree is cleaned. Its ctimes are true, whatever its mtimes say."""

    FAR_AHEAD = auto()
    """``NOW``: mtimes alone decide."""
    AN_AGE_AHEAD = auto()
    """What was made before is old, what is changed from now on is young."""
    TRUE = auto()
    """Everything was made just now."""

    def now(self) -> float:
        """Return Unix seconds."""
        return NOW if self is Clock.FAR_AHEAD else time.time() + (_AGE if self is Clock.AN_AGE_AHEAD else 0)


class TreeTarget:
    """All that is old, has a prefix and lies in a listed directory goes, and nothing else; links lead nowhere."""

    strategy = st.tuples(_file_trees, st.booleans(), st.integers(0, 6), st.sampled_from(Clock))

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._base = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._outside = self._base / "outside"
        self._listed = self._base / "listed"
        self.accepted = 0

    def examine(self, example: tuple[dict[str, Any], bool, int, Clock]) -> None:
        """Lay a tree out, clean it, and look around."""
        tree, dry_run, budget, clock = example
        self._prepare()
        with suppress(OSError):  # a time or a name that this file system can't hold
            self._grow(self._listed, tree)
        outside, before = snapshot(self._outside), snapshot(self._listed)
        now = clock.now()
        order = Order(UUID(int=0), timedelta(seconds=_AGE), budget, 1000, dry_run=dry_run, plan=None, stop=lambda: None)
        try:
            result = clean_temp_files(order, [self._listed], ["storage-", "mat-debug-"], now=now)
        except Exception as error:  # noqa: BLE001
            self._notes.note("unhandled", tree, error)
            return
        after = snapshot(self._listed)
        if _without_ctimes(snapshot(self._outside)) != _without_ctimes(outside):
            self._notes.note("escapes", tree, "something outside has changed")
        if wrong := [path for path in before.keys() - after.keys() if not may_go(path, before, now)]:
            self._notes.note("escapes", tree, wrong)
        gone_at_top = sum("/" not in path for path in before.keys() - after.keys())
        if dry_run and gone_at_top:
            self._notes.note("escapes", tree, "a dry run deleted")
        if gone_at_top != result.deleted or gone_at_top > budget:
            self._notes.note("disagreements", tree, result)
        left = [path for path in after if "/" not in path and may_go(path, before, now)]
        if left and not (dry_run or result.stopped):
            self._notes.note("disagreements", tree, left)
        self.accepted += gone_at_top

    def finish(self) -> None:
        """Clear everything away."""
        shutil.rmtree(self._base, ignore_errors=True)

    def _prepare(self) -> None:
        shutil.rmtree(self._listed, ignore_errors=True)
        self._listed.mkdir()
        if not self._outside.exists():
            (self._outside / "sub").mkdir(parents=True)
            for path in (self._outside / "canary", self._outside / "storage-old", self._outside / "sub" / "storage-x"):
                path.write_text("sings")
                os.utime(path, (0, 0))

    def _grow(self, where: Path, tree: dict[str, Any]) -> None:
        for name, (kind, when, what) in tree.items():
            path = where / name
            match kind:
                case "directory":
                    path.mkdir()
                    self._grow(path, what)
                case "link":
                    path.symlink_to(self._base / what if what.startswith("outside") else what)
                case "hard link":
                    os.link(self._outside / "storage-old", path)
                    continue  # it shares its time with the canary
                case "pipe":
                    os.mkfifo(path)
                case _:
                    path.write_bytes(b"x")
            os.utime(path, (when, when), follow_symlinks=False)


class Seen(NamedTuple):
    """What is known of an entry."""

    mode: int
    size: int
    mtime: float
    ctime: float


def snapshot(root: Path) -> dict[str, Seen]:
    """Return mode, size and times of everything below a directory, by path."""
    found: dict[str, Seen] = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)  # noqa: PTH118 (names may be no text)
            status = os.lstat(path)
            # Losing an entry changes a directory's own time and size.
            is_directory = stat.S_ISDIR(status.st_mode)
            size = 0 if is_directory else status.st_size
            found[os.path.relpath(path, root)] = Seen(status.st_mode, size, status.st_mtime, status.st_ctime)
    return found


def _without_ctimes(found: dict[str, Seen]) -> dict[str, Seen]:
    """Leave out what losing a hard link elsewhere changes."""
    return {path: seen._replace(ctime=0) for path, seen in found.items()}


def may_go(path: str, before: dict[str, Seen], now: float) -> bool:
    """Tell whether a path may be deleted: its top has a prefix, and everything in there is old and ordinary."""
    top = path.split("/", maxsplit=1)[0]
    return top.startswith(("storage-", "mat-debug-")) and all(
        max(seen.mtime, seen.ctime) < now - _AGE
        and (stat.S_ISREG(seen.mode) or stat.S_ISDIR(seen.mode) or stat.S_ISLNK(seen.mode))
        for inner, seen in before.items()
        if inner == top or inner.startswith(f"{top}/")
    )


# -- metadata ----------------------------------------------------------------------------------------------------------

_CLAIMED = 40
_SPELLINGS: Sequence[Callable[[UUID], str]] = (
    str,
    lambda job: str(job).upper(),
    lambda job: "".join(one.upper() if place % 3 else one for place, one in enumerate(str(job))),
    lambda job: job.hex,
    lambda job: job.hex.upper(),
    lambda job: f"{{{job}}}",
    lambda job: f"{{{job.hex}}}",
    lambda job: "-".join(job.hex[place : place + 4] for place in range(0, 32, 4)),
    lambda job: f"{job.hex[:16]}-{job.hex[16:]}",
    lambda job: job.urn,
    lambda job: f"  {job}\n",
    lambda job: f"job {job} (final)",
    lambda job: f"https://x.example/jobs/{job}?v=2",
    lambda job: f'"{job}"',
    lambda job: f"{uuid4()},{job}",
    lambda job: f"{uuid4()}{job}",
    lambda job: f"x{job.hex}x",
)
_WRAPPINGS: Sequence[Callable[[Any], Any]] = (
    lambda value: value,
    lambda value: value,
    lambda value: value,
    lambda value: [value],
    lambda value: [1, None, [value, "x"]],
    lambda value: {"id": value},
    lambda value: {value: True},
    lambda value: {"jobs": [{"id": value}, {"id": None}]},
    lambda value: ["y" * 3000, value],
)
_jsonb_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(
        [
            *(
                "",
                "null",
                "\0",
                "\ud800",
                "\\u0000",
                "ü",
                "﷽",
                "\U0010ffff",
                "'",
                '"',
                "\\",
                "%s",
                "$1",
                "{}",
                "{",
                "-" * 40,
            ),
            *("0" * 31, "0" * 33, "f" * 4000, "g" * 70_000, "0123456789abcdef" * 20_000, "ab-" * 3000, "1234-" * 2000),
            *("00000000-0000-0000-0000-00000000000g", "0000000-00000-0000-0000-000000000000", 10**300, 1e-300, -0.0),
        ]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@dataclass(frozen=True)
class Save:
    """One INSERT or UPDATE by the application; ``names`` says how it spells a job, if it names one at all."""

    value: Any
    spelling: int | None
    wrapping: int
    claimed: int | None
    by_update: bool
    isolation: str
    shape: str


_saves = st.builds(
    Save,
    value=_jsonb_values,
    spelling=st.none() | st.integers(0, len(_SPELLINGS) - 1),
    wrapping=st.integers(0, len(_WRAPPINGS) - 1),
    claimed=st.none() | st.none() | st.none() | st.integers(0, _CLAIMED - 1),
    by_update=st.booleans(),
    isolation=st.sampled_from(["read committed"] * 6 + ["repeatable read", "serializable"]),
    shape=st.sampled_from(["usual"] * 6 + ["extra", "value", "list"]),
)


class MetadataTarget:
    """The application's own rows never fail because of the guard, and any spelling of a job protects it."""

    strategy = _saves

    def __init__(self, connection: psycopg.Connection[Any], notes: Notes) -> None:
        self._connection, self._notes = connection, notes
        self._claimed = [uuid4() for _ in range(_CLAIMED)]
        self._named: dict[UUID, Save] = {}
        self.accepted = self.refused_by_postgres = self.refused_by_guard = 0
        connection.execute(
            "insert into storage_cleanup.deletion (job_id, state, run_id) "
            "select unnest(%s::uuid[]), 'claimed', gen_random_uuid()",
            (self._claimed,),
        )

    def examine(self, save: Save) -> None:
        """Save one asset, and expect what its metadata deserves."""
        job = uuid4() if save.claimed is None else self._claimed[save.claimed]
        text = json.dumps(self._metadata(save, job))
        names_claimed = save.spelling is not None and save.claimed is not None
        try:
            self._save(save, text)
        except pg.ForeignKeyViolation as refusal:
            if names_claimed and refusal.diag.constraint_name == "storage_cleanup_guard":
                self.refused_by_guard += 1
            else:
                self._notes.note("unhandled", text, refusal)
            return
        except psycopg.Error as error:
            if self._is_json(text):
                self._notes.note("unhandled", text, error)
            else:
                self.refused_by_postgres += 1
            return
        if names_claimed:
            self._notes.note("escapes", text, "a save of a claimed job passed")
        self.accepted += 1
        if save.spelling is not None:
            self._named[job] = save
        if len(self._named) >= BATCH:
            self.finish()

    def finish(self) -> None:
        """Ask the database who is saved, and start again with an empty table."""
        named, self._named = self._named, {}
        rows = self._connection.execute("select storage_cleanup.saved_among(%s::uuid[])", (list(named),)).fetchall()
        saved = {row[0] for row in rows}
        for job, save in named.items():
            if job not in saved:
                self._notes.note("escapes", self._metadata(save, job), "a saved job looks unsaved")
        self._connection.execute("truncate user_assets")

    @staticmethod
    def _metadata(save: Save, job: UUID) -> Any:
        value = save.value
        if save.spelling is not None:
            value = _WRAPPINGS[save.wrapping](_SPELLINGS[save.spelling](job))
        elif save.shape == "value":
            return value
        elif save.shape == "list":
            return [{"render_job_id": value}]
        return {"render_job_id": value, **({"title": "x", "tags": []} if save.shape == "extra" else {})}

    def _save(self, save: Save, text: str) -> None:
        user = UUID(int=1)
        with self._connection.transaction():
            self._connection.execute(f"set transaction isolation level {save.isolation}".encode())
            if save.by_update:
                row = self._connection.execute(
                    "insert into user_assets (user_id, asset_type) values (%s, 'x') returning id", (user,)
                ).fetchone()
                assert row
                self._connection.execute("update user_assets set metadata = %s::jsonb where id = %s", (text, row[0]))
            else:
                self._connection.execute(
                    "insert into user_assets (user_id, asset_type, metadata) values (%s, 'x', %s::jsonb)", (user, text)
                )

    def _is_json(self, text: str) -> bool:
        try:
            self._connection.execute("select %s::jsonb", (text,))
        except psycopg.Error:
            return False
        return True


# -- the campaign ------------------------------------------------------------------------------------------------------


@contextmanager
def connected(ground: Ground) -> Iterator[psycopg.Connection[Any]]:
    """Connect to a project as the application's owner."""
    with ground.create("fuzz").connect() as connection:
        yield connection


@contextmanager
def connected_to_oldest() -> Iterator[psycopg.Connection[Any]]:
    """Connect to a database of the oldest PostgreSQL that the wheel has: versions read the same SQL differently."""
    with workspace("fuzz-oldest") as directory, Postgres(directory / "postgres", 16) as cluster:
        cluster.prepare_template()
        cluster.create_database("fuzz")
        with Database(cluster, "fuzz").connect() as connection:
            yield connection


@dataclass(frozen=True)
class Fuzz:
    """The campaign."""

    name: str = "fuzz"

    def run(self, seed: int, short: bool) -> Figures:
        """Explore every target."""
        counts, notes = (SHORT if short else LONG), Notes()
        with (
            silence(),
            Ground.prepared("fuzz") as ground,
            connected(ground) as connection,
            connected_to_oldest() as oldest,
        ):
            targets: dict[str, Any] = {
                "urls": UrlTarget((connection, oldest), notes),
                "events": EventTarget(notes),
                "parameters": ParameterTarget(notes),
                "metadata": MetadataTarget(connection, notes),
                "trees": TreeTarget(notes),
            }
            examined = dict.fromkeys(targets, 0)
            for name, target in targets.items():
                began = time.monotonic()
                examined[name] = explore(target.strategy, target.examine, counts[name], seed)
                if hasattr(target, "finish"):
                    target.finish()
                print(f"  … {name}: {time.monotonic() - began:.0f} s", flush=True)
        return {
            "examples": sum(examined.values()),
            "by_target": examined,
            "accepted": {name: target.accepted for name, target in targets.items()},
            "saves_refused_by_guard": targets["metadata"].refused_by_guard,
            "saves_refused_by_postgres": targets["metadata"].refused_by_postgres,
            **{kind: notes.counts[kind] for kind in _BAD},
            "found": {kind: "; ".join(examples) for kind, examples in notes.examples.items()},
        }

    def goals(self, figures: Figures) -> list[str]:
        """Nothing unhandled, nothing outside, no disagreement."""
        return missed(figures, {**dict.fromkeys(_BAD, "== 0"), "saves_refused_by_guard": "> 0"})


_BAD = ("unhandled", "escapes", "disagreements", "misplaced_keys")
CAMPAIGN = Fuzz()
