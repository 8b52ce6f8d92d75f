"""The server: a JSON API over a store as one ASGI app, on the public API alone.

It shows what a store holds and, where a token may, changes it. It runs nobody's code, and it is not a way for programs
to write: the library is. Needs the extra `server`.
"""

from .app import app
from .tokens import Token, read_tokens

__all__ = ["Token", "app", "read_tokens"]
