"""One definition of an operation, two faces: a plain method and a coroutine.

A family's operation is written once, as ``async def op(self, tx, ...)``. On a `Store` it is a plain method, on an
`AsyncStore` a coroutine function; inside ``store.transaction()`` it works on that transaction. Bodies may run again
after a `Conflict`, so they do nothing but read and write through `tx`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from inspect import Signature, signature
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_origin, overload

from ..errors import InvalidArgument
from .bridge import iterate_now, run_now
from .namespace import Reader, Scope
from .transaction import Transaction, transact

P = ParamSpec("P")
R = TypeVar("R")
Work = Callable[..., Coroutine[Any, Any, Any]]


class Blocking:
    """Runs operations in the calling thread; the engine must not suspend."""

    def __init__(self, scope: Scope, tx: Transaction | None = None) -> None:
        self.scope = scope
        self.tx = tx

    def operation(self, work: Work, family: Any) -> Callable[..., Any]:
        scope, tx = self.scope, self.tx
        if tx is not None:
            return lambda *args, **kwargs: run_now(within(tx, work, family, args, kwargs))
        used_up = _iterables(work)
        if used_up:
            return lambda *args, **kwargs: run_now(transact(scope, _again(work, family, args, kwargs, used_up)))
        return lambda *args, **kwargs: run_now(transact(scope, lambda new: work(family, new, *args, **kwargs)))

    def reading(self, work: Work, family: Any) -> Callable[..., Any]:
        reader: Reader = self.scope.reader
        if self.tx is not None:
            return self.operation(work, family)
        return lambda *args, **kwargs: run_now(work(family, reader, *args, **kwargs))

    def procedure(self, work: Work, family: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: run_now(work(family, *args, **kwargs))

    def joining(self, work: Work, family: Any) -> Callable[..., Any]:
        if self.tx is not None:
            return self.operation(_without_tx(work), family)
        return self.procedure(work, family)

    def iteration(self, work: Callable[..., AsyncIterator[Any]], family: Any) -> Callable[..., Any]:
        tx = self.tx
        if tx is not None:
            return lambda *args, **kwargs: iterate_now(iterate_within(tx, work(family, tx, *args, **kwargs)))
        reader = self.scope.reader
        return lambda *args, **kwargs: iterate_now(work(family, reader, *args, **kwargs))


class Suspending:
    """Runs operations on the event loop."""

    def __init__(self, scope: Scope, tx: Transaction | None = None) -> None:
        self.scope = scope
        self.tx = tx

    def operation(self, work: Work, family: Any) -> Callable[..., Any]:
        scope, tx, used_up = self.scope, self.tx, _iterables(work) if self.tx is None else ()

        async def call(*args: Any, **kwargs: Any) -> Any:
            if tx is not None:
                return await within(tx, work, family, args, kwargs)
            return await transact(scope, _again(work, family, args, kwargs, used_up))

        return call

    def reading(self, work: Work, family: Any) -> Callable[..., Any]:
        reader: Reader = self.scope.reader
        if self.tx is not None:
            return self.operation(work, family)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await work(family, reader, *args, **kwargs)

        return call

    def procedure(self, work: Work, family: Any) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await work(family, *args, **kwargs)

        return call

    def joining(self, work: Work, family: Any) -> Callable[..., Any]:
        if self.tx is not None:
            return self.operation(_without_tx(work), family)
        return self.procedure(work, family)

    def iteration(self, work: Callable[..., AsyncIterator[Any]], family: Any) -> Callable[..., Any]:
        tx = self.tx
        if tx is not None:
            return lambda *args, **kwargs: iterate_within(tx, work(family, tx, *args, **kwargs))
        reader = self.scope.reader
        return lambda *args, **kwargs: work(family, reader, *args, **kwargs)


M = TypeVar("M", Blocking, Suspending)


class Family(Generic[M]):
    """A kind of record: its key layout and its operations."""

    def __init__(self, face: M) -> None:
        self._face: M = face
        self._scope: Scope = face.scope

    async def _transact(self, body: Callable[[Transaction], Awaitable[R]]) -> R:
        """Run a body in a transaction of its own: for procedures, which take several steps."""
        return await transact(self._scope, body)

    async def _finish(self, body: Callable[[Transaction], Awaitable[R]]) -> R:
        """Run a body in the open transaction, else in one of its own: for what joins one."""
        tx = self._face.tx
        return await transact(self._scope, body) if tx is None else await body(tx)


Observer = Callable[[Callable[..., Any], str, str, str], Callable[..., Any]]
"""Makes of a bound operation, the name of its family, its own and its namespace what is called in its place."""

_observer: Observer | None = None


def observe(observer: Observer | None) -> None:
    """Let telemetry stand before each operation that is bound from now on; None: nothing does, and nothing is paid."""
    global _observer
    _observer = observer


F = TypeVar("F", bound=Family[Any])
D = TypeVar("D", bound="_Described")


class _Described:
    """A public method as its class has it: docstring, signature, and bound once to each family."""

    _kind = "operation"
    _skip = 2  # self and tx do not belong to the public signature

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self._name = self.__name__ = work.__name__
        self.__qualname__ = work.__qualname__
        self.__module__ = work.__module__
        self.__doc__ = work.__doc__
        self.__wrapped__ = work

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = self.__name__ = name

    def __call__(self, family: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As a function of the class: ``Instances.get(store.instances, "id")``."""
        return getattr(family, self._name)(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        """Return what `help` and documentation tools show: as a method's, without the transaction that the store
        brings.
        """
        public = self.public_signature()
        family = next(iter(signature(self._work).parameters.values()))
        return public.replace(parameters=[family, *public.parameters.values()])

    def public_signature(self) -> Signature:
        """The signature as a caller sees it."""
        full = signature(self._work)
        public = list(full.parameters.values())[self._skip :]
        return full.replace(parameters=public)

    def _bind(self, family: Any) -> Any:
        face = family._face
        call: Any
        if self._kind == "procedure" and face.tx is not None:
            call = _refusing(self._name)
        else:
            call = getattr(face, self._kind)(self._work, family)
        if _observer is not None and self._kind != "iteration":
            call = _observer(call, type(family).__name__, self._name, face.scope.namespace)
        call.__name__ = call.__qualname__ = self._name
        call.__doc__ = self.__doc__
        if face.tx is None:  # families of a transaction live shortly: not worth a look at the signature
            call.__signature__ = self.public_signature()
        family.__dict__[self._name] = call  # found before this descriptor from now on
        return call


class operation(_Described, Generic[F, P, R]):  # noqa: N801 - used as a decorator
    """A public method made of a coroutine over a transaction."""

    def __init__(self, work: Callable[Concatenate[F, Transaction, P], Coroutine[Any, Any, R]]) -> None:
        super().__init__(work)

    @overload
    def __get__(self, family: None, owner: type) -> "operation[F, P, R]": ...
    @overload
    def __get__(self, family: Family[Blocking], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, family: Family[Suspending], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, family: Any, owner: type) -> Any:
        return self if family is None else self._bind(family)


class reading(_Described, Generic[F, P, R]):  # noqa: N801
    """An operation that only reads: no bookkeeping unless it is inside a transaction."""

    _kind = "reading"

    def __init__(self, work: Callable[Concatenate[F, Reader, P], Coroutine[Any, Any, R]]) -> None:
        super().__init__(work)

    @overload
    def __get__(self, family: None, owner: type) -> "reading[F, P, R]": ...
    @overload
    def __get__(self, family: Family[Blocking], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, family: Family[Suspending], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, family: Any, owner: type) -> Any:
        return self if family is None else self._bind(family)


class procedure(_Described, Generic[F, P, R]):  # noqa: N801
    """A method of several steps, each its own transaction, or one that waits; refused inside a transaction."""

    _kind = "procedure"
    _skip = 1

    def __init__(self, work: Callable[Concatenate[F, P], Coroutine[Any, Any, R]]) -> None:
        super().__init__(work)

    @overload
    def __get__(self, family: None, owner: type) -> "procedure[F, P, R]": ...
    @overload
    def __get__(self, family: Family[Blocking], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, family: Family[Suspending], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, family: Any, owner: type) -> Any:
        return self if family is None else self._bind(family)


class joining(procedure[F, P, R]):  # noqa: N801
    """A procedure that takes part in an open transaction: its work finds that one as ``self._face.tx``.

    Its body runs once, so it may use up what it is given; what it ends with goes through `Family._finish`.
    """

    _kind = "joining"


class iteration(_Described, Generic[F, P, R]):  # noqa: N801
    """A method that iterates: an iterator on `Store`, an async iterator on `AsyncStore`."""

    _kind = "iteration"

    def __init__(self, work: Callable[Concatenate[F, Reader, P], AsyncIterator[R]]) -> None:
        super().__init__(work)

    @overload
    def __get__(self, family: None, owner: type) -> "iteration[F, P, R]": ...
    @overload
    def __get__(self, family: Family[Blocking], owner: type) -> Callable[P, Iterator[R]]: ...
    @overload
    def __get__(self, family: Family[Suspending], owner: type) -> Callable[P, AsyncIterator[R]]: ...
    def __get__(self, family: Any, owner: type) -> Any:
        return self if family is None else self._bind(family)


def _iterables(work: Work) -> tuple[str, ...]:
    """The parameters by name that may be given an iterator."""
    parameters = signature(work).parameters.values()
    return tuple(item.name for item in parameters if get_origin(item.annotation) in (Iterable, Collection))


def _again(work: Work, family: Any, args: Any, kwargs: Any, used_up: tuple[str, ...]) -> Work:
    """The body of a transaction, which may run again: what can be read only once is read before."""
    for name in used_up:
        if isinstance(kwargs.get(name), Iterator):
            kwargs[name] = tuple(kwargs[name])
    return lambda new: work(family, new, *args, **kwargs)


async def within(tx: Transaction, work: Work, family: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on an open transaction; if it is refused, nothing of it stays."""
    tx.check_open()
    point = tx.rows.savepoint()
    try:
        return await work(family, tx, *args, **kwargs)
    except BaseException:
        tx.rows.rollback_to(point)
        raise


async def iterate_within(tx: Transaction, items: AsyncIterator[R]) -> AsyncIterator[R]:
    """Iterate while a transaction is open."""
    while True:
        tx.check_open()
        try:
            item = await anext(items)
        except StopAsyncIteration:
            return
        yield item


def _without_tx(work: Work) -> Work:
    async def call(family: Any, tx: Transaction, *args: Any, **kwargs: Any) -> Any:
        del tx
        return await work(family, *args, **kwargs)

    return call


def _refusing(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        raise InvalidArgument(f"{name} cannot be used inside a transaction", what=name)

    return call
