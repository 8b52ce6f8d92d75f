"""Consumers of the feed: watchers, their loop, checkpoints and dead letters.

Order and positions are the feed's; this room remembers how far each consumer has come.
"""
