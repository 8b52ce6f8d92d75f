"""LangGraph's checkpoints and long-term memory in a store.

`StateroomSaver` is a checkpointer, `StateroomStore` a store of items. Needs ``stateroom[langgraph]``.
"""

from .importing import Imported
from .items import StateroomStore
from .listing import Thread
from .saver import StateroomSaver

__all__ = ["Imported", "StateroomSaver", "StateroomStore", "Thread"]
