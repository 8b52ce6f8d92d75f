"""Errors as answers: ``{"code", "message", "fields"}`` with the status that fits."""

from typing import Any

from starlette.responses import Response

from ..errors import (
    AlreadyExists,
    Closed,
    Compacted,
    Conflict,
    Damaged,
    InUse,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Refused,
    StoreError,
    Timeout,
    Unavailable,
)
from .jsonable import encode

STATUSES: tuple[tuple[type[StoreError], int], ...] = (
    (NotFound, 404),
    (AlreadyExists, 409),
    (Refused, 409),
    (Conflict, 409),
    (Compacted, 410),
    (InvalidArgument, 422),
    (Timeout, 504),
    (Unavailable, 503),
    (OutcomeUnknown, 503),
    (Closed, 503),
    (InUse, 503),
    (Damaged, 500),
)

_SHOWN = 1000


class HttpError(Exception):
    """Why a request is not served, before any store is asked."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def status_of(error: StoreError) -> int:
    """The status of an answer that reports an error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON that nobody keeps."""
    return Response(encode(value), status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def error_response(error: Exception) -> Response:
    """The answer that reports an error; of one that nobody expected it says nothing."""
    if isinstance(error, HttpError):
        body = {"code": error.code, "message": str(error), "fields": {}}
        return json_response(body, error.status, error.headers)
    if isinstance(error, StoreError):
        fields = {name: _short(value) for name, value in error.fields.items() if name != "value"}
        headers = {"retry-after": "1"} if status_of(error) == 503 else {}
        return json_response(
            {"code": error.code, "message": error.message, "fields": fields}, status_of(error), headers
        )
    return json_response({"code": "error", "message": "the server failed; its log says why", "fields": {}}, 500)


def _short(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, bytes):
        return value[:_SHOWN].hex()
    return value[:_SHOWN] if isinstance(value, str) else value
