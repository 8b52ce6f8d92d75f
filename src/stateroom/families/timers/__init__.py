"""Durable timers: what is due is found by time over all parts, once or again and again, until it is marked done."""

from .record import Timer

__all__ = ["Timer"]
