"""Locations of results: which node holds a value of a DAG, which nodes there are, and what was cleared everywhere.

A location is a hint: the value's digest, which stands beside it, is what a reader goes by. Not here: values, and
whatever moves them (`stateroom.node`).
"""

from .family import Locations
from .nodes import NodeInfo
from .record import Location

__all__ = ["Location", "Locations", "NodeInfo"]
