"""Commits to one part that come together share a transaction: its lock, its round trip and its flush.

The first goes at once and alone. Those that come while it is under way would wait on the server for the lock of the
part; they wait here instead and then go together. Each is checked for itself, and if the server refuses what they sent
together, each goes alone: none suffers from another.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from stateroom.engine import Batch, Outcome
from stateroom.errors import OutcomeUnknown, StoreError

MOST, MOST_BYTES = 32, 1 << 20
"""Batches, and bytes of values, that share a transaction."""

PATIENCE = 30.0
"""Seconds until a line that does not move is given up."""


def _bytes(batch: Batch) -> int:
    return sum(len(value) for value in batch.write.values() if value) + sum(len(value) for _, value in batch.append)


class _Turn:
    """A batch that waits for others, and what became of it."""

    __slots__ = ("batch", "called", "group", "outcome")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.called = threading.Lock()
        self.called.acquire()
        self.group: list[_Turn] | None = None
        """Set for the one who carries out a group: these."""
        self.outcome: Outcome | None = None
        """None where it has to be carried out alone."""

    def settle(self, outcome: Outcome | None) -> None:
        self.outcome = outcome
        self.called.release()


class Turns:
    """For threads: whoever has waited longest carries out the group."""

    def __init__(
        self, alone: Callable[[int, Batch], int], together: Callable[[int, Sequence[Batch]], list[Outcome]]
    ) -> None:
        self._alone, self._together = alone, together
        self.reset()

    def reset(self) -> None:
        """Begin anew: in a forked child."""
        self._lock = threading.Lock()
        self._lines: dict[int, deque[_Turn]] = {}

    def commit(self, part: int, batch: Batch) -> int:
        """The version. Raises what the batch alone would have raised."""
        turn: _Turn | None = None
        with self._lock:
            line = self._lines.get(part)
            if line is None:
                line = self._lines[part] = deque()
            else:
                turn = _Turn(batch)
                line.append(turn)
        if turn is not None:
            return self._wait(part, line, turn)
        try:
            return self._alone(part, batch)
        finally:
            self._call_next(part, line)

    def _wait(self, part: int, line: deque[_Turn], turn: _Turn) -> int:
        try:
            if not turn.called.acquire(timeout=PATIENCE):
                self._dissolve(part, line)
                turn.called.acquire()
        except BaseException:
            self._leave(part, line, turn)
            raise
        if turn.group is not None:
            try:
                self._carry_out(part, turn.group)
            finally:
                self._call_next(part, line)
        if turn.outcome is None:
            return self._alone(part, turn.batch)
        if isinstance(turn.outcome, BaseException):
            raise turn.outcome
        return turn.outcome

    def _carry_out(self, part: int, group: list[_Turn]) -> None:
        outcomes: Sequence[Outcome | None] = [None] * len(group)
        try:
            if len(group) > 1:
                outcomes = self._together(part, [turn.batch for turn in group])
        except BaseException as error:
            outcomes = [_told(error) for _ in group]
            if not isinstance(error, StoreError):
                raise
        finally:
            for turn, outcome in zip(group, outcomes, strict=True):
                turn.settle(outcome)

    def _call_next(self, part: int, line: deque[_Turn]) -> None:
        with self._lock:
            if self._lines.get(part) is not line:
                return
            if not line:
                del self._lines[part]
                return
            group, size = [line.popleft()], 0
            while line and len(group) < MOST and (size := size + _bytes(line[0].batch)) <= MOST_BYTES:
                group.append(line.popleft())
            group[0].group = group
        group[0].called.release()

    def _dissolve(self, part: int, line: deque[_Turn]) -> None:
        """Let everybody in a line go alone: it does not move, as whoever should move it is stuck or was interrupted."""
        with self._lock:
            if self._lines.get(part) is line:
                del self._lines[part]
            waiting = list(line)
            line.clear()
        for turn in waiting:
            turn.settle(None)

    def _leave(self, part: int, line: deque[_Turn], turn: _Turn) -> None:
        """Interrupted while waiting: it may be carried out or not; what it was to do for others, another does."""
        with self._lock:
            if turn in line:
                line.remove(turn)
            rest = [] if turn.group is None else turn.group[1:]
            if rest:
                rest[0].group = rest
        if rest:
            rest[0].called.release()
        elif turn.group is not None:
            self._call_next(part, line)


class AsyncTurns:
    """For tasks: a task of its own carries out groups, so that no caller's end is another's."""

    def __init__(
        self,
        alone: Callable[[int, Batch], Awaitable[int]],
        together: Callable[[int, Sequence[Batch]], Awaitable[list[Outcome]]],
    ) -> None:
        self._alone, self._together = alone, together
        self.reset()

    def reset(self) -> None:
        """Begin anew: in a forked child."""
        self._lines: dict[int, deque[tuple[Batch, asyncio.Future[int]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def commit(self, part: int, batch: Batch) -> int:
        """The version. Raises what the batch alone would have raised."""
        line = self._lines.get(part)
        if line is not None:
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            line.append((batch, future))
            return await future
        self._lines[part] = deque()
        try:
            return await self._alone(part, batch)
        finally:
            self._call_next(part)

    def _call_next(self, part: int) -> None:
        if not self._lines[part]:
            del self._lines[part]
            return
        task = asyncio.get_running_loop().create_task(self._drain(part))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, part: int) -> None:
        line = self._lines[part]
        try:
            while line:
                group: list[tuple[Batch, asyncio.Future[int]]] = []
                size = 0
                while line and len(group) < MOST and (not group or (size := size + _bytes(line[0][0])) <= MOST_BYTES):
                    batch, future = line.popleft()
                    if not future.done():  # whoever was cancelled while waiting has changed nothing
                        group.append((batch, future))
                await self._carry_out(part, group)
        finally:
            del self._lines[part]
            for _, future in line:  # only where the loop ends
                future.cancel()

    async def _carry_out(self, part: int, group: list[tuple[Batch, "asyncio.Future[int]"]]) -> None:
        outcomes: Sequence[Outcome | None] = [None] * len(group)
        try:
            if len(group) > 1:
                outcomes = await self._together(part, [batch for batch, _ in group])
        except BaseException as error:
            outcomes = [_told(error) for _ in group]
            if not isinstance(error, StoreError):
                raise
        finally:
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if outcome is not None:
                    _settle(future, outcome)
        for (batch, future), outcome in zip(group, outcomes, strict=True):
            if outcome is None:
                _settle(future, await self._outcome(part, batch))

    async def _outcome(self, part: int, batch: Batch) -> Outcome:
        try:
            return await self._alone(part, batch)
        except StoreError as error:
            return error


def _settle(future: "asyncio.Future[int]", outcome: Outcome) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _told(error: BaseException) -> OutcomeUnknown | None:
    """What one of a group is told: that nobody knows; or None, to find out for itself why nothing was done."""
    if isinstance(error, StoreError) and not isinstance(error, OutcomeUnknown):
        return None
    unknown = OutcomeUnknown(  # one for each: a traceback belongs to one thread
        "the transaction that this commit shared with others was interrupted: the change may be there or not;"
        " look before trying again, or use `once`"
    )
    unknown.__cause__ = error
    return unknown
