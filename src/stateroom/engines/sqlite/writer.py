"""One writer at a time: whoever holds the lock commits everything queued, in one transaction and one flush."""

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable

import apsw

from ...engine import Batch, Outcome, validate
from ...errors import Closed, InvalidArgument, OutcomeUnknown, StoreError
from .connections import Connections, closed
from .failures import flush_failed, mapped
from .group import Group

__all__ = ["Writer"]

_log = logging.getLogger("stateroom.sqlite")

_BYTES = {bytes, type(None)}

GROUP_BATCHES = 512
GROUP_BYTES = 16 << 20
"""A group ends at either: bounds how long others wait and how far the log grows in one go."""


class _Job:
    __slots__ = ("batch", "done", "outcome", "part")

    def __init__(self, part: int, batch: Batch, done: Callable[[Outcome], None] | None) -> None:
        self.part = part
        self.batch = batch
        self.done = done
        self.outcome: Outcome | None = None


class Writer:
    """Commits batches of blocking callers in their own thread, and those of `submit` in one thread of its own."""

    def __init__(self, connections: Connections, moved: Callable[[], None], logged: Callable[[int], None]) -> None:
        """`moved` is called after each group that changed something, `logged` with the pages of the log then."""
        self.lock = threading.Lock()
        self._connections = connections
        self._moved = moved
        self._logged = logged
        self._forget()

    def commit(self, part: int, batch: Batch) -> int:
        """The version `batch` makes of its part."""
        _validate(batch)
        self._connections.check()
        job = _Job(part, batch, None)
        self._queue.append(job)
        try:
            while job.outcome is None:
                self._lead(job)
        except BaseException:
            self._withdraw(job)
            raise
        outcome = job.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def submit(self, part: int, batch: Batch, done: Callable[[Outcome], None]) -> None:
        """Queue `batch`; `done` gets every outcome, refusals before it was queued included."""
        job = _Job(part, batch, done)
        try:
            _validate(batch)
            self._connections.check()
        except StoreError as refusal:
            job.outcome = refusal
            _deliver([job])
            return
        self._queue.append(job)
        if not self._work.is_set():
            self._work.set()
        if self._thread is None:
            self._start()
        if self._stopped:
            self._refuse_queued()

    def close(self) -> None:
        """Wait for the running commit, refuse what is still queued, end the thread."""
        self._stopped = True
        self._work.set()
        self._refuse_queued()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def after_fork_in_child(self) -> None:
        """Forget the parent's queue and thread; what was queued is the parent's to commit."""
        stopped = self._stopped
        self._forget()
        self._stopped = stopped

    def _forget(self) -> None:
        self._queue: deque[_Job] = deque()
        self._work = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopped = False

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stopped:
                thread = threading.Thread(target=self._serve, name="stateroom-sqlite-writer", daemon=True)
                thread.start()
                self._thread = thread

    def _serve(self) -> None:
        while not self._stopped:
            self._work.wait()
            self._work.clear()
            while self._queue and not self._stopped:
                self._lead(None)

    def _lead(self, own: _Job | None) -> None:
        """Commit one group, unless somebody else has committed `own` meanwhile."""
        jobs: list[_Job] = []
        try:
            with self.lock:
                if own is None or own.outcome is None:
                    self._commit_group(jobs)
        finally:
            _deliver(jobs)

    def _commit_group(self, jobs: list[_Job]) -> None:
        connection, outcomes, committing = None, list[Outcome](), False
        try:
            connection = self._connections.writer()
            connection.execute("BEGIN IMMEDIATE")
            group = Group(connection)
            while self._queue and len(jobs) < GROUP_BATCHES and group.size < GROUP_BYTES:
                job = self._queue[0]
                jobs.append(job)  # before it leaves the queue: an interrupt in between must not lose it
                self._queue.popleft()
                try:
                    outcomes.append(group.add(job.part, job.batch))
                except StoreError as refusal:
                    outcomes.append(refusal)
            group.flush()
            committing = True
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the outcome of the whole group
            self._take_rest(jobs, outcomes)
            failure = self._failure(error, committing)
            outcomes = [outcome if isinstance(outcome, StoreError) else _again(failure) for outcome in outcomes]
            self._roll_back(connection)
            if isinstance(failure, OutcomeUnknown):
                self._connections.refuse(Closed(f"{failure.message}; until then this one is closed"))
                self._connections.close_all(checkpoint=False)
        except BaseException:
            self._interrupted(connection, jobs, outcomes)
            raise
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.outcome = outcome
        self._moved()
        self._logged(self._connections.log_pages)

    def _take_rest(self, jobs: list[_Job], outcomes: list[Outcome]) -> None:
        """Where no transaction could be begun, all that are queued fail; and so does the one being looked at."""
        if not jobs:
            while self._queue:
                jobs.append(self._queue.popleft())
        outcomes.extend([0] * (len(jobs) - len(outcomes)))

    def _failure(self, error: Exception, committing: bool) -> Exception:
        path = self._connections.path
        if not isinstance(error, apsw.Error):
            return error
        if committing and flush_failed(error):
            failure: StoreError = OutcomeUnknown(
                f"the flush of {path} failed ({error}): the commit may be there or not; open the store again and look"
            )
        else:
            failure = mapped(error, path)
        failure.__cause__ = error
        return failure

    def _roll_back(self, connection: apsw.Connection | None) -> None:
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error as error:
            _log.warning("%s: could not roll back, opening a new connection: %s", self._connections.path, error)
            self._connections.drop_writer()

    def _interrupted(self, connection: apsw.Connection | None, jobs: list[_Job], outcomes: list[Outcome]) -> None:
        """Ctrl-C in the middle: what was committed is told so, what was not is put back for the next leader."""
        if jobs and connection is not None and not connection.in_transaction:
            for job, outcome in zip(jobs, outcomes, strict=False):
                job.outcome = outcome
            return
        self._roll_back(connection)
        if jobs and self._queue and jobs[-1] is self._queue[0]:
            jobs.pop()
        self._queue.extendleft(reversed(jobs))
        jobs.clear()
        self._work.set()

    def _withdraw(self, job: _Job) -> None:
        with self.lock:
            if job.outcome is None and job in self._queue:
                self._queue.remove(job)

    def _refuse_queued(self) -> None:
        jobs = []
        with self.lock:
            while self._queue:
                job = self._queue.popleft()
                job.outcome = closed(self._connections.path)
                jobs.append(job)
        _deliver(jobs)


def _validate(batch: Batch) -> None:
    """The limits, and that all is bytes: SQLite would notice only when the whole group is being written."""
    validate(batch)
    found = {*map(type, batch.write), *map(type, batch.write.values()), *map(type, batch.expect), *map(type, batch.add)}
    for prefix, value in batch.append:
        found.update((type(prefix), type(value)))
    if not found <= _BYTES:
        names = ", ".join(sorted(kind.__name__ for kind in found - _BYTES))
        raise InvalidArgument(f"a batch holds {names}; keys and values are bytes", what="batch")


def _again(failure: Exception) -> Exception:
    """The same error once more: each caller raises one of its own, with a traceback of its own."""
    copied = copy.copy(failure)
    copied.__cause__ = failure.__cause__
    return copied


def _deliver(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.done is not None and job.outcome is not None:
            try:
                job.done(job.outcome)
            except Exception:  # noqa: BLE001 - others of the group must hear of their outcome
                _log.exception("a callback given to submit() failed")
