"""Nodes in processes of their own, and what stands between them and others."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import stateroom

from .conftest import SECRET

CLIENT, SERVER = "client", "server"


class Gate:
    """A TCP proxy at a port of its own: cuts a connection after some bytes, and can be shut for a while."""

    def __init__(self, target):
        host, _, port = target.removeprefix("http://").removeprefix("https://").rpartition(":")
        self._target = (host, int(port))
        self._listener = None
        self._lock = threading.Lock()
        self._pairs = []
        self._side, self._left = None, None
        self.cut_happened = threading.Event()
        self.passed = {CLIENT: 0, SERVER: 0}
        self.port = 0
        self.shut_after_cut = False
        """Whether nobody comes through any more after a cut: what is behind has gone."""
        self.open()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def open(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self):
        """Refuse everybody, and end what goes through."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._end()

    def arm(self, side, after):
        """Cut everything as soon as `after` bytes more of one side have gone through."""
        self.cut_happened.clear()
        with self._lock:
            self._side, self._left = side, after

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            for side, source, sink in ((CLIENT, client, server), (SERVER, server, client)):
                threading.Thread(target=self._pump, args=(side, source, sink), daemon=True).start()

    def _pump(self, side, source, sink):
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    cutting = side == self._side and self._left is not None and len(data) >= self._left
                    if side == self._side and self._left is not None:
                        data, self._left = data[: self._left], None if cutting else self._left - len(data)
                    self.passed[side] += len(data)
                sink.sendall(data)
                if cutting:
                    if self.shut_after_cut:
                        self.shut()
                    self._end()
                    self.cut_happened.set()
                    return
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            source.close()

    def _end(self):
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Process:
    """`stateroom node run` on a file of its own."""

    def __init__(self, cluster, name, *, local=None, prefix=(), **options):
        secret = cluster.folder / "secret"
        secret.write_bytes(SECRET)
        self.name = name
        self.local = str(local or cluster.folder / f"{name}.db")
        command = [*prefix, sys.executable, "-m", "stateroom", "--url", cluster.url, "--namespace", cluster.namespace]
        command += ["--json", "node", "run", "--name", name, "--local", self.local, "--secret-file", str(secret)]
        for option, value in options.items():
            command += [f"--{option.replace('_', '-')}", str(value)]
        environment = {**os.environ, "PYTHONPATH": str(Path(stateroom.__file__).parents[1])}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        line = self.process.stdout.readline()
        assert line, f"node {name} did not start"
        self.address = json.loads(line)["address"]

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        """As the out-of-memory killer does."""
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def filled(cluster, name, values, dag="d"):
    """The file of a node that holds some values of a DAG."""
    path = cluster.folder / f"{name}.db"
    with stateroom.open(path) as store:
        for id, value in values.items():
            store.results.put(dag, id, value)
    return path


def until(condition, seconds=60.0):
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        threading.Event().wait(0.02)
    return value
