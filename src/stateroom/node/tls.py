"""TLS between nodes: a certificate for each, usually from a certificate authority of one's own."""

import ssl
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import InvalidArgument


class TLS(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files in PEM form. `ca`: who signs the other nodes' certificates (None: whom this machine trusts).

    `mutual`: a node is answered only when it shows a certificate that `ca` has signed.
    """

    cert: str
    key: str
    ca: str | None = None
    mutual: bool = False


def read_tls(source: Any) -> TLS | None:
    """`source` as a `TLS`, from one, a mapping with its fields, or None. Raises `InvalidArgument`."""
    if source is None or isinstance(source, TLS):
        tls = source
    elif isinstance(source, Mapping):
        try:
            tls = msgspec.convert({name: _path(value) for name, value in source.items()}, TLS)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"tls: {error}", what="tls") from None
    else:
        raise InvalidArgument(f"tls is a {type(source).__name__}; use stateroom.node.TLS(cert=, key=)", what="tls")
    if tls is not None and tls.mutual and tls.ca is None:
        raise InvalidArgument("mutual TLS needs ca: the file of who signs the nodes' certificates", what="tls")
    return tls


def _path(value: Any) -> Any:
    return value if isinstance(value, str | bool) or value is None else str(value)


def server_context(tls: TLS) -> ssl.SSLContext:
    """Return what a node's server uses. Raises `InvalidArgument` for files that are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls)
    if tls.mutual:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: TLS) -> ssl.SSLContext:
    """Return what a node uses to ask another; names in certificates are checked."""
    context = ssl.create_default_context(cafile=None)
    if tls.ca is not None:  # one's own authority, and no other
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: TLS) -> None:
    file = f"{tls.cert} with {tls.key}"
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.ca is not None:
            file = tls.ca
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"tls: {file} cannot be used: {error}", what="tls") from error
