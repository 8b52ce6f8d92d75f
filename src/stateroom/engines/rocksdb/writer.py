"""One writer at a time: whoever has the lock commits everything queued, in one WriteBatch and one flush.

A group is the head of the queue. Its batches leave the queue when they have their outcome, and not before: a leader who
is interrupted, at whatever line, leaves them where they are, in their order, for the next one.
"""

import contextlib
import copy
import logging
import threading
from collections import deque
from collections.abc import Callable
from itertools import repeat
from queue import SimpleQueue

import rocksdict

from ...engine import Batch, Outcome
from ...errors import OutcomeUnknown, StoreError, Unavailable
from ..batches import validate_bytes
from ..interrupts import Lock, is_foreign
from .failures import closed, is_rocksdb, mapped, write_failed
from .group import Group

__all__ = ["Writer"]

_log = logging.getLogger("stateroom.rocksdb")

GROUP_BATCHES = 512
GROUP_BYTES = 16 << 20
"""A group ends at either: bounds how long others wait."""

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

    __slots__ = ("filled", "group", "jobs", "outcomes", "ticket")

    def __init__(self) -> None:
        self.group: Group | None = None
        self.jobs: list[_Job] = []
        self.outcomes: list[Outcome] = []
        self.filled = False
        self.ticket = [rocksdict.WriteBatch(raw_mode=True)]
        """What is to be written, filled when it is complete; empty once a signal's handler has seen to the group."""


class Writer:
    """Commits batches of blocking callers in their own thread, and those of `submit` in one thread of its own."""

    def __init__(
        self, path: str, db: rocksdict.Rdict, *, sync: bool, check: Callable[[], None], moved: Callable[[], None]
    ) -> None:
        """`check` raises why nothing can be committed any more; `moved` is called after each group."""
        self.lock = Lock()
        self._path = path
        self._db = db
        self._options = rocksdict.WriteOptions()
        self._options.sync = sync
        self._check = check
        self._moved = moved
        self._broken: StoreError | None = None
        self._queue: deque[_Job] = deque()
        self._told: deque[_Job] = deque()
        self._attempt: _Attempt | None = None
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._awake = False
        self._thread: threading.Thread | None = None
        self._starting = Lock()
        self._stopped = False

    @property
    def leading(self) -> bool:
        """Whether this very thread is in the middle of a group: true in a signal's handler alone."""
        return self.lock.owned

    def commit(self, part: int, batch: Batch) -> int:
        """The version `batch` makes of its part."""
        validate_bytes(batch)
        self._check()
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
            self._check()
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
            self._refuse_queued(closed(self._path))

    def close(self) -> None:
        """Wait for the running commit, refuse what is still queued, end the thread."""
        self._stopped = True
        self._refuse_queued(closed(self._path))
        self._awake = True
        self._signal.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not self.leading:
            thread.join()
        self._deliver_told()

    def _start(self) -> None:
        nested = self._starting.owned
        try:
            with self._starting:
                if self._thread is None and not self._stopped:
                    thread = threading.Thread(target=self._serve, name="stateroom-rocksdb-writer", daemon=True)
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
                    _log.exception("%s: a group of commits was interrupted", self._path)
                    if failures == _TRIES:
                        self._refuse_queued(Unavailable(f"could not commit ({error!r}); nothing was written"))
                self._deliver_told()
        self._deliver_told()

    def _lead(self, own: _Job | None) -> None:
        """Commit one group, unless somebody else has committed `own` meanwhile."""
        nested = self.lock.owned
        try:
            with self.lock:
                if own is None or own.outcome is None:
                    self._commit_group(nested)
        except BaseException:
            self.lock.give_back(nested=nested)
            raise

    def _commit_group(self, nested: bool) -> None:
        suspended = self._attempt
        if suspended is not None:
            self._settle(suspended)
        attempt = self._attempt = _Attempt()
        try:
            try:
                complete = self._run(attempt)
            except Exception as error:
                if is_foreign(error):
                    raise
                self._fail(attempt, error)
                complete = True
            if complete:
                self._tell(attempt)
        except BaseException:
            self._settle(attempt)
            raise
        finally:
            self._attempt = suspended if nested else None
            if self._told:
                self._hand_over()
        self._moved()

    def _run(self, attempt: _Attempt) -> bool:
        """Write the head of the queue, as much as a group takes; False where a signal's handler has seen to it."""
        if self._broken is not None:
            raise _another(self._broken)
        group = attempt.group = Group(self._db)
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
        if not group.changes:
            return bool(attempt.ticket)
        for batch in attempt.ticket:
            group.fill(batch)
            attempt.filled = True
        # Looking at the ticket and writing is one call in C: no signal is handled in between.
        return bool([*map(self._db.write, attempt.ticket, repeat(self._options))])

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
        """Make `error` the outcome of the group; where none was begun, of all that are queued."""
        attempt.jobs = attempt.jobs or list(self._queue.copy())
        missing = [0] * (len(attempt.jobs) - len(attempt.outcomes))
        failure: Exception = error
        if is_rocksdb(error):
            failure = write_failed(error, self._path) if attempt.filled else mapped(error, self._path)
            failure.__cause__ = error
        if attempt.filled:  # RocksDB takes no write any more after one that failed
            self._broken = Unavailable(
                f"{self._path} takes no commits since one failed ({error}); reads go on; see to the disk,"
                " then close the store and open it again"
            )
        if isinstance(failure, OutcomeUnknown):
            _log.error("%s: %s", self._path, failure)
        attempt.outcomes = [
            outcome if isinstance(outcome, StoreError) else _another(failure)
            for outcome in (*attempt.outcomes, *missing)
        ]

    def _settle(self, attempt: _Attempt) -> None:
        """Tell the outcomes of a group that was written; see to it that one that was not never is."""
        group, complete = attempt.group, len(attempt.outcomes) == len(attempt.jobs)
        written = bool(attempt.ticket) and complete and group is not None and group.is_there()
        attempt.ticket.clear()
        if written:  # or all of it refused
            self._tell(attempt)

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
                    self._settle(self._attempt)
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
