"""Writes ``install.sql``, for the SQL editor, from the files of this room: ``python -m database.bundle``."""

from dataclasses import dataclass
from pathlib import Path

ROOM = Path(__file__).parent
INSTALL = ROOM / "install.sql"

ONE_AT_A_TIME = "hashtext('storage_cleanup.install')"
"""The advisory lock that an installation holds, by either way."""

_HEAD = f"""\
-- Storage Cleanup: ledger, guard and worker role.
--
-- Run the whole file as `postgres`, in Supabase's SQL editor or with psql. Running it again changes nothing.
-- With psql: psql -v ON_ERROR_STOP=1 "$ADMIN_DATABASE_URL" -f database/install.sql, so that an error is the last line.
-- It needs public.render_jobs, public.user_assets and Supabase's storage schema; uninstall.sql takes it back.
--
-- For up to about 100,000 rows in each of the two tables: all of it is one transaction, and whoever writes to them
-- waits meanwhile. With more, use `make install-database`, which stops nobody; each knows what the other has done.
--
-- Made by `make database/install.sql` from the files beside it. Change those.

begin;
set local lock_timeout = '10s';
set local client_min_messages = warning;
select pg_advisory_xact_lock({ONE_AT_A_TIME});
"""
_TAIL = "\ncommit;\n"

# In an order in which each finds what it calls.
_FUNCTIONS = (
    *(
        "suitability",
        "application",
        "values",
        "readings",
        "places",
        "installation",
        "locks",
        "renders",
        "references",
        "guard",
        "candidates",
        "comparison",
        "preflight",
        "runs",
        "claim",
    ),
    *("confirm", "rows", "health", "columns"),
)
_LAST = ("bucket.sql", "indexes.sql", "triggers.sql", "first_look.sql", "gate_open.sql")


@dataclass(frozen=True)
class Migration:
    """A numbered file: what changes the tables of our schema, once."""

    number: int
    name: str
    text: str

    @classmethod
    def from_file(cls, path: Path) -> "Migration":
        """Read it: ``0001_ledger.sql`` is number 1, ledger."""
        number, _, name = path.stem.partition("_")
        return cls(int(number), name, path.read_text())

    @property
    def record(self) -> str:
        """The statement that notes it."""
        return f"insert into storage_cleanup.migration (number, name) values ({self.number}, '{self.name}');\n"  # noqa: S608

    @property
    def once(self) -> str:
        """The same as a statement that does nothing when it has been applied."""
        condition = f"not exists (select from storage_cleanup.migration where number = {self.number})"
        body = f"    if {condition} then\n        execute $sql$\n{self.text}$sql$;\n        {self.record}    end if;\n"
        return f"do $migration$\nbegin\n{body}end $migration$;\n"


class Room:
    """The files of a database room, by what they are for.

    Parameters
    ----------
    directory
        Where they lie.
    """

    def __init__(self, directory: Path = ROOM) -> None:
        self._directory = directory
        self.migrations = [Migration.from_file(path) for path in sorted(directory.glob("migrations/*.sql"))]

    def read(self, name: str) -> str:
        """Return the text of a file."""
        return (self._directory / name).read_text()

    @property
    def checks(self) -> str:
        """What refuses before anything is changed. It asks a function that isn't installed yet: one of the session."""
        suitability = self.read("functions/suitability.sql").replace("storage_cleanup.unsuitable", "pg_temp.unsuitable")
        known = ", ".join(f"({migration.number}, '{migration.name}')" for migration in self.migrations)
        return f"{suitability}\n{self.read('checks.sql').replace('${migrations}', known)}"

    @property
    def functions(self) -> dict[str, str]:
        """Each file of functions by its name, who may call them, and what has to happen around it."""
        subjects = [f"functions/{subject}.sql" for subject in _FUNCTIONS]
        return {name: self.read(name) for name in ("functions_before.sql", *subjects, "worker.sql")}

    def bundle(self) -> str:
        """Return the text of ``install.sql``."""
        parts = {
            "checks.sql": self.checks,
            "migration_table.sql": self.read("migration_table.sql"),
            **{f"migrations/{each.number:04}_{each.name}.sql": each.once for each in self.migrations},
            "gate_closed.sql": self.read("gate_closed.sql"),
            **self.functions,
            **{name: self.read(name) for name in _LAST},
        }
        rule = "-- " + "-" * 111
        return _HEAD + "".join(f"\n{rule}\n-- {name}\n\n{text}" for name, text in parts.items()) + _TAIL


if __name__ == "__main__":
    INSTALL.write_text(Room().bundle())
