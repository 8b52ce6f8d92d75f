"""Programs in processes of their own, and other hands on the same file."""

import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import apsw

PATIENCE = 60.0
"""Seconds after which something that should have come back counts as hanging."""


def environment():
    """For a Python program that can import what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def python(code, *arguments):
    """The command that runs `code`."""
    return [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]


def start(code, *arguments):
    """`code` in a process of its own; its output is a pipe."""
    return subprocess.Popen(python(code, *arguments), env=environment(), stdout=subprocess.PIPE, text=True)


def run(code, *arguments):
    """What such a program prints; it has to end well."""
    with start(code, *arguments) as program:
        try:
            printed, _ = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert program.returncode == 0
    return printed.split()


@contextmanager
def held(path):
    """Another connection has the write lock, as another process would."""
    connection = apsw.Connection(path)
    # It may be the last to close the file, and knows nothing of page checksums.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextmanager
def counting_commits():
    """The COMMIT statements that any connection opened in here executes, in a list."""
    found = []

    def watch(connection):
        def note(cursor, statement, bindings):
            if statement.startswith("COMMIT"):
                found.append(statement)
            return True

        connection.exec_trace = note

    apsw.connection_hooks.append(watch)
    try:
        yield found
    finally:
        apsw.connection_hooks.remove(watch)


class Outcomes:
    """Callbacks for `submit`, and what they were given."""

    def __init__(self, expected):
        self._given = {}
        self._expected = expected
        self._all = threading.Event()

    def __call__(self, number):
        def done(outcome):
            assert number not in self._given, "called twice"
            self._given[number] = outcome
            if len(self._given) == self._expected:
                self._all.set()

        return done

    def all(self):
        assert self._all.wait(PATIENCE), f"only {len(self._given)} of {self._expected} came back"
        return [self._given[number] for number in sorted(self._given)]


class Wrapped:
    """A connection whose statement `refused` raises `error`."""

    def __init__(self, connection, refused, error):
        self._connection = connection
        self._refused = refused
        self._error = error

    def execute(self, statement, *bindings):
        if statement == self._refused:
            raise self._error
        return self._connection.execute(statement, *bindings)

    def __getattr__(self, name):
        return getattr(self._connection, name)
