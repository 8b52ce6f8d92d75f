"""Leases: the right to write under a key for a time, with fencing tokens that rise for ever."""

from .record import (
    Lease,
    acquire,
    check_time,
    fence,
    forget,
    live_holders,
    look,
    lost,
    release,
    renew,
    revoke,
    rows,
    token_key,
    until_key,
)

__all__ = [
    "Lease",
    "acquire",
    "check_time",
    "fence",
    "forget",
    "live_holders",
    "look",
    "lost",
    "release",
    "renew",
    "revoke",
    "rows",
    "token_key",
    "until_key",
]
