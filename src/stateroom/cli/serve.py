"""`stateroom serve`: the board and the JSON API over a store, until it is interrupted."""

import asyncio
from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument
from .session import key_ring, session


def serve(
    context: typer.Context,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 for any.")] = "127.0.0.1:8700",
    read_only: Annotated[bool, typer.Option("--read-only", help="Change nothing, whatever the token.")] = False,
    token_file: Annotated[
        str | None, typer.Option(help="A token a line: SECRET [read|write] [name=WHO] [namespaces=A,B].")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its key (PEM).")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy before it has TLS; everybody needs a token then.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="The path that it is reached at, like /state.")] = "",
) -> None:
    """Serve the board and the JSON API until interrupted.

    On this machine it can be read without a token. An address that others reach needs a token file, and TLS or a proxy.
    """
    serving = load_serving()
    settings = serving.read_settings(
        listen,
        read_only=read_only,
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        behind_proxy=behind_proxy,
        prefix=prefix,
    )
    here = session(context)

    def started(address: str) -> None:
        if here.output.as_json:
            here.output.line({"address": address})
        else:
            here.output.say(f"Stateroom at {address} ; Ctrl-C ends it")

    async def run() -> None:
        opening = stateroom.open_async(
            here.url, namespace=here.namespace, create=False, key_ring=key_ring(), read_only=read_only
        )
        async with opening as store:
            await serving.serve(store, settings, started)

    asyncio.run(run())


def load_serving() -> Any:
    """The module that serves; `InvalidArgument` where its extra is not installed."""
    try:
        from ..web import serving
    except ImportError as error:
        raise InvalidArgument('serving needs the extra: pip install "stateroom[server]"', what="serve") from error
    return serving
