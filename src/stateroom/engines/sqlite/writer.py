"""One writer at a time: whoever holds the lock commits everything queued, in one transaction and one flush.

A group is the head of the queue. Its batches leave the queue when they have their outcome, and not before: a leader who
is interrupted, at whatever line, leaves them where they are, in their order, for the next one.
"""

import contextlib
import copy
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

import apsw

from ...engine import Batch, Outcome
from ...errors import Closed, Damaged, OutcomeUnknown, StoreError, Unavailable
from ..batches import validate_bytes
from ..interrupts import Lock, is_foreign
from .connections import Connections, closed
from .failures import flush_failed, mapped
from .group import Group

__all__ = ["Writer"]

_log = logging.getLogger("stateroom.sqlite")

GROUP_BATCHES = 512
GROUP_BYTES = 16 << 20
"""A group ends at either: bounds how long others wait and how far the log grows in one go."""

_TRIES = 3
"""Groups that may fail in the writer's own thread, by what is no error of the database, before the queue is refused."""


class _Job:
    __slots__ = ("batch", "done", "outcome", "part")

    def __init__(self, part: int, batch: Batch, done: Callable[[Outcome], None] | None) -> None:
        self.part = part
        self.batch = batch
        self.done = done
        self.outcome: Outcome | None = None


class _Attempt:
    """A group under way: enough to say, at whatever line it was left, what has become of it."""

    __slots__ = ("committing", "connection", "group", "jobs", "outcomes", "superseded")

    def __init__(self) -> None:
        self.connection: apsw.Connection | None = None
        self.group: Group | None = None
        self.jobs: list[_Job] = []
        self.outcomes: list[Outcome] = []
        self.committing = False
        self.superseded = False
        """A signal's handler that ran in its middle has seen to it: told its outcomes, or closed its connection."""


class Writer:
    """Commits batches of blocking callers in their own thread, and those of `submit` in one thread of its own."""

    def __init__(self, connections: Connections, moved: Callable[[], None], logged: Callable[[int], None]) -> None:
        """`moved` is called after each group that changed something, `logged` with the pages of the log then."""
        self.lock = Lock()
        self._connections = connections
        self._moved = moved
        self._logged = logged
        self._forget()

    @property
    def leading(self) -> bool:
        """Say whether this very thread is in the middle of a group: true in a signal's handler alone."""
        return self.lock.owned

    def commit(self, part: int, batch: Batch) -> int:
        """The version `batch` makes of its part."""
        validate_bytes(batch)
        self._connections.check()
        job = _Job(part, batch, None)
        try:
            self._queue.append(job)
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
            validate_bytes(batch)
            self._connections.check()
        except StoreError as refusal:
            job.outcome = refusal
            _deliver(job)
            return
        try:
            self._queue.append(job)
            if self._thread is None:
                self._start()
        finally:
            self._wake()
        if self._stopped:
            self._refuse_queued(closed(self._connections.path))

    def close(self) -> None:
        """Wait for the running commit, refuse what is still queued, end the thread.

        In a signal's handler that came in the middle of a group, that group is ended first: told, or refused.
        """
        self._stopped = True
        self._refuse_queued(closed(self._connections.path))
        self._awake = True
        self._signal.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not self.leading:
            thread.join()
        self._deliver_told()

    def settle(self) -> None:
        """End a group that this very thread is in the middle of, before it forks; its frame goes on with another."""
        if self._attempt is not None and self.leading:
            self._settle(self._attempt, suspended=True)

    def after_fork_in_child(self) -> None:
        """Forget the parent's queue and thread; what was queued is the parent's to commit."""
        stopped = self._stopped
        for job in self._queue:
            job.outcome = job.outcome or Unavailable("this process was forked in a commit, which its parent makes")
        self._forget()
        self._stopped = stopped

    def _forget(self) -> None:
        self._queue: deque[_Job] = deque()
        self._told: deque[_Job] = deque()
        self._attempt: _Attempt | None = None
        # Neither an Event nor a Condition: theirs are locks in Python code, which an interrupt may leave locked.
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._awake = False
        self._thread: threading.Thread | None = None
        self._starting = Lock()
        self._stopped = False

    def _start(self) -> None:
        nested = self._starting.owned
        try:
            with self._starting:
                if self._thread is None and not self._stopped:
                    thread = threading.Thread(target=self._serve, name="stateroom-sqlite-writer", daemon=True)
                    thread.start()
                    self._thread = thread
        except BaseException:
            self._starting.give_back(nested=nested)
            raise

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._signal.put(None)

    def _serve(self) -> None:
        signal, failures = self._signal, 0
        while not self._stopped:
            signal.get()
            self._awake = False  # before the look at the queue: what comes after it wakes again
            self._deliver_told()
            while self._queue and not self._stopped:
                try:
                    self._lead(None)
                    failures = 0
                except BaseException as error:  # noqa: BLE001 - nobody is there to be told but those in the queue
                    failures += 1
                    _log.exception("%s: a group of commits was interrupted", self._connections.path)
                    if failures == _TRIES:
                        self._refuse_queued(Unavailable(f"could not commit ({error!r}); nothing was written"))
                self._deliver_told()
        self._deliver_told()

    def _lead(self, job: _Job | None) -> None:
        """Commit one group, unless somebody else has committed `job` meanwhile."""
        nested = self.lock.owned
        try:
            with self.lock:
                if job is None or job.outcome is None:
                    self._commit_group(nested)
        except BaseException:
            self.lock.give_back(nested=nested)
            raise

    def _commit_group(self, nested: bool) -> None:
        suspended = self._attempt
        if suspended is not None:
            self._settle(suspended, suspended=nested)
        attempt = self._attempt = _Attempt()
        try:
            try:
                self._run(attempt)
            except Exception as error:
                if attempt.superseded and not is_foreign(error):
                    return
                if not _is_shared(error):
                    raise
                self._fail(attempt, error)
            self._tell(attempt)
        except BaseException:
            self._settle(attempt, suspended=False)
            raise
        finally:
            self._attempt = suspended if nested else None
            if self._told:
                self._hand_over()
        self._moved()
        self._logged(self._connections.log_pages)

    def _run(self, attempt: _Attempt) -> None:
        """Write the head of the queue, as much as a group takes, as one transaction."""
        connection = attempt.connection = self._connections.writer()
        connection.execute("BEGIN IMMEDIATE")
        group = attempt.group = Group(connection)
        queue, jobs, outcomes = self._queue, attempt.jobs, attempt.outcomes
        while queue and queue[0].outcome is not None:  # a leader was interrupted twice
            self._take_off(queue[0])
        while len(jobs) < GROUP_BATCHES and len(jobs) < len(queue) and group.size < GROUP_BYTES:
            job = queue[len(jobs)]
            jobs.append(job)
            try:
                outcomes.append(group.add(job.part, job.batch))
            except StoreError as refusal:
                if is_foreign(refusal):
                    raise
                outcomes.append(refusal)
        group.flush()
        attempt.committing = True
        connection.execute("COMMIT")
        self._connections.check_commit(connection)

    def _tell(self, attempt: _Attempt) -> None:
        """Give a group its outcomes and take it off the queue. Interrupted anywhere, it can be run again."""
        for job, outcome in zip(attempt.jobs, attempt.outcomes, strict=True):
            job.outcome = outcome
        for job in attempt.jobs:
            self._take_off(job)

    def _take_off(self, job: _Job) -> None:
        """Take off the queue a batch that has its outcome, unless a signal's handler in the middle of this has."""
        if job.done is not None:
            self._told.append(job)
        with contextlib.suppress(ValueError):
            self._queue.remove(job)  # searched from the left, where it is

    def _fail(self, attempt: _Attempt, error: Exception) -> None:
        """Make `error` the outcome of the group; where no transaction could be begun, of all that are queued."""
        attempt.jobs = attempt.jobs or list(self._queue.copy())
        missing = [0] * (len(attempt.jobs) - len(attempt.outcomes))
        failure = self._failure(error, attempt.committing)
        self._roll_back(attempt.connection)
        if isinstance(failure, Damaged) and not self._connections.replaced and attempt.connection is not None:
            try:
                self._connections.check_place(attempt.connection)
            except Damaged as replaced:  # what SQLite stumbled over is another file
                failure = replaced
            except apsw.Error:
                pass
        attempt.outcomes = [
            outcome if isinstance(outcome, StoreError) else _another(failure)
            for outcome in (*attempt.outcomes, *missing)
        ]
        if isinstance(failure, OutcomeUnknown):
            self._connections.refuse(Closed(f"{failure.message}; until then this one is closed"))
        if isinstance(failure, OutcomeUnknown) or self._connections.replaced:
            self._connections.close_all(checkpoint=False)

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
        except apsw.ConnectionClosedError:
            pass
        except apsw.Error as error:
            _log.warning("%s: could not roll back, opening a new connection: %s", self._connections.path, error)
            self._connections.drop_writer()

    def _settle(self, attempt: _Attempt, *, suspended: bool) -> None:
        """Tell the outcomes of a group that was committed, and undo one that was not: its batches are still queued.

        `suspended`: its frame will go on, after the signal's handler that this runs in. What is open then is closed, so
        that the frame cannot write outside of the transaction it believes to be in.
        """
        connection = attempt.connection
        if connection is None:
            return
        try:
            unfinished = connection.in_transaction
        except apsw.ConnectionClosedError:
            return
        if unfinished and suspended:
            attempt.superseded = True
            self._connections.abandon(connection)
        elif unfinished:
            self._roll_back(connection)
        elif attempt.committing and self._landed(attempt):
            self._tell(attempt)
            attempt.superseded = True
        if suspended:
            self._connections.set_aside()

    def _landed(self, attempt: _Attempt) -> bool:
        """Say whether a COMMIT that has ended did commit: an interrupt may come before its result is seen."""
        group = attempt.group
        if group is None or len(attempt.outcomes) < len(attempt.jobs):
            return False
        with contextlib.suppress(StoreError):  # closed meanwhile: then that the transaction has ended must do
            return self._connections.reading(group.is_there)
        return True

    def _hand_over(self) -> None:
        """Have outcomes of `submit` delivered by the writer's own thread, in which no signal is handled."""
        if threading.current_thread() is self._thread:
            return
        if self._thread is None:
            self._start()
        if self._stopped:
            self._deliver_told()
        else:
            self._wake()

    def _withdraw(self, job: _Job) -> None:
        nested = self.lock.owned
        try:
            with self.lock:
                if job.outcome is None and job in self._queue:
                    self._queue.remove(job)
        finally:
            self.lock.give_back(nested=nested)

    def _refuse_queued(self, refusal: StoreError) -> None:
        nested = self.lock.owned
        try:
            with self.lock:
                if nested and self._attempt is not None:
                    self._settle(self._attempt, suspended=True)
                for job in self._queue.copy():
                    job.outcome = job.outcome or _another(refusal)
                    self._take_off(job)
        except BaseException:
            self.lock.give_back(nested=nested)
            raise
        self._deliver_told()

    def _deliver_told(self) -> None:
        """Call back those of `submit` that have their outcome. Several threads may do so at once."""
        while self._told:
            try:
                job = self._told.popleft()
            except IndexError:  # another thread has it
                return
            try:
                _deliver(job)
            except BaseException:
                self._told.appendleft(job)
                raise


def _is_shared(error: Exception) -> bool:
    """Say whether `error` is the database's or ours, and so everybody's of the group; else it is the leader's alone."""
    if isinstance(error, apsw.Error):
        return True
    return not is_foreign(error) and (isinstance(error, StoreError) or type(error).__module__ == "builtins")


def _another(failure: Exception) -> Exception:
    """The same error once more: each caller raises one of its own, with a traceback of its own."""
    copied = copy.copy(failure)
    copied.__cause__ = failure.__cause__
    return copied


def _deliver(job: _Job) -> None:
    done, job.done = job.done, None
    if done is not None and job.outcome is not None:
        try:
            done(job.outcome)
        except Exception:  # noqa: BLE001 - others of the group must hear of their outcome
            _log.exception("a callback given to submit() failed")
        except BaseException:
            job.done = done
            raise
