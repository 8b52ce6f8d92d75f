"""`memo` as a decorator, and the types of both: what a function gives is what a caller gets."""

from collections.abc import Callable, Collection, Coroutine
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from ...core.operation import Blocking, Family, Suspending, procedure
from ...errors import InvalidArgument

if TYPE_CHECKING:
    from datetime import timedelta

P = ParamSpec("P")
R = TypeVar("R")


class BlockingMemo(Protocol):
    """``store.results.memo``."""

    def __call__(
        self,
        dag: str,
        function_name: str,
        inputs: Any,
        compute: Callable[..., R],
        *,
        ttl: "float | timedelta | None" = None,
        timeout: "float | timedelta | None" = None,
        ignore: Collection[str] = (),
    ) -> R: ...


class SuspendingMemo(Protocol):
    """``store.results.memo`` of an `AsyncStore`."""

    @overload
    def __call__(
        self,
        dag: str,
        function_name: str,
        inputs: Any,
        compute: Callable[..., Coroutine[Any, Any, R]],
        *,
        ttl: "float | timedelta | None" = None,
        timeout: "float | timedelta | None" = None,
        ignore: Collection[str] = (),
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(
        self,
        dag: str,
        function_name: str,
        inputs: Any,
        compute: Callable[..., R],
        *,
        ttl: "float | timedelta | None" = None,
        timeout: "float | timedelta | None" = None,
        ignore: Collection[str] = (),
    ) -> Coroutine[Any, Any, R]: ...


class memoizing(procedure[Any, Any, Any]):  # noqa: N801 - used as a decorator
    """A procedure that takes a function and gives what it gives."""

    @overload
    def __get__(self, family: None, owner: type) -> "memoizing": ...
    @overload
    def __get__(self, family: Family[Blocking], owner: type) -> BlockingMemo: ...
    @overload
    def __get__(self, family: Family[Suspending], owner: type) -> SuspendingMemo: ...
    def __get__(self, family: Any, owner: type) -> Any:
        return self if family is None else self._bind(family)


class BlockingDecorator(Protocol):
    """The decorator that ``memoized`` gives on a `Store`."""

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


class SuspendingDecorator(Protocol):
    """The decorator that ``memoized`` gives on an `AsyncStore`."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


def name_of(function: Any, name: str | None) -> str:
    """The name of a memoized function: the one given, else its module and qualified name."""
    if name is not None:
        return name
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError as error:
        raise InvalidArgument(
            f"{function!r} has no name of its own; give memoized(..., name=...)", what="name", value=function
        ) from error


def decorate(function: Any, memo: Callable[[str, Any, Any], Any], name: str | None, *, suspends: bool) -> Any:
    """A function that asks `memo(function name, inputs, compute)`; the inputs are its arguments by their names."""
    if not callable(function):
        raise InvalidArgument(f"{function!r} cannot be called; decorate a function", what="function", value=function)
    if iscoroutinefunction(function) and not suspends:
        raise InvalidArgument(
            f"{name_of(function, name)} is a coroutine function; memoize it with an AsyncStore", what="function"
        )
    key = name_of(function, name)
    try:
        parameters = signature(function)
    except ValueError as error:
        raise InvalidArgument(
            f"{key} does not say what its arguments are; wrap it in a function", what="function", value=function
        ) from error

    def ask(args: Any, kwargs: Any) -> Any:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return memo(key, dict(bound.arguments), lambda: function(*args, **kwargs))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return ask(args, kwargs)

    @wraps(function)
    async def call_later(*args: Any, **kwargs: Any) -> Any:
        return await ask(args, kwargs)

    return call_later if suspends else call
