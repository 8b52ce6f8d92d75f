"""Results held where they were made: nodes that fetch them from one another, over a shared store that knows where.

Needs the extra ``server``. On the public interface of stores alone. Not here: scheduling, and moving anything that was
not asked for.
"""

from .blocking import Node
from .node import AsyncNode, NodeInfo
from .tls import TLS

__all__ = ["TLS", "AsyncNode", "Node", "NodeInfo"]
