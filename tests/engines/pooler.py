"""PgBouncer in transaction mode, for the tests of the PostgreSQL engine."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from stateroom.testing.postgres import finish, free_port, keep, missing

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """A PgBouncer in front of `port`, with so many sessions for everybody; ends with this process, or by `close`."""

    def __init__(self, port, sessions=2):
        if PROGRAM is None:
            missing("no pgbouncer here: apt-get install pgbouncer")
        self.port = free_port()
        # Where the server's user can read it: it does not run as root.
        folder = Path(tempfile.mkdtemp(prefix="stateroom-pooler-"))
        folder.chmod(0o755)
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "pooler.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nauth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\n"
            f"default_pool_size = {sessions}\nserver_login_retry = 0\nunix_socket_dir =\n"
        )
        self._folder = folder
        self._process = keep([PROGRAM, "-q", str(folder / "pooler.ini")], folder / "pooler.out")
        self._wait()

    def _wait(self):
        while True:
            assert self._process.poll() is None, (self._folder / "pooler.out").read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except ConnectionRefusedError:
                continue
            return

    def close(self):
        finish(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)
