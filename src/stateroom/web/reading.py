"""Reading requests: queries and bodies, of bounded size and time."""

import asyncio
from urllib.parse import parse_qs

from starlette.requests import Request

from .errors import HttpError
from .guard import BODY_BYTES

BODY_SECONDS = 10.0
"""How long a request's body may take to come."""


def query_of(request: Request) -> dict[str, list[str]]:
    """The parameters of a request's query. Raises `UnicodeError` for what is no UTF-8."""
    text = request.scope["query_string"].decode("utf-8", "strict")
    return parse_qs(text, keep_blank_values=True, max_num_fields=100, errors="strict")


async def body_of(request: Request) -> bytes:
    """The body of a request. Raises `HttpError` for one that is too large or too slow."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for block in request.stream():
                data += block
                if len(data) > BODY_BYTES:
                    raise HttpError(413, "too-large", f"the body may have {BODY_BYTES} bytes")
    except TimeoutError as error:
        raise HttpError(408, "too-slow", "the body did not come in time") from error
    return bytes(data)
