"""Sessions of browsers: a cookie stands for a token, so that the secret itself is sent once."""

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from .errors import HttpError
from .tokens import Token

COOKIE = "stateroom_session"
SESSIONS = 1000
SECONDS = 12 * 3600.0


class Session(NamedTuple):
    """A browser that has shown a token."""

    id: str
    token: Token
    csrf: str
    """Stands in every form, so that a page of another site cannot send one."""
    ends: float

    def check(self, csrf: str) -> None:
        """Raise `HttpError` for a form that was not made for this session."""
        if not hmac.compare_digest(csrf.encode("utf-8", "surrogateescape"), self.csrf.encode()):
            raise HttpError(403, "forbidden", "this form is not of your session; load the page again")


class Sessions:
    """The sessions of a server, in memory: it forgets them when it ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, token: Token) -> Session:
        """A new session for a token; the oldest one gives way where there are too many."""
        session = Session(secrets.token_urlsafe(32), token, secrets.token_urlsafe(32), self._clock() + SECONDS)
        self._sessions[session.id] = session
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def find(self, id: str) -> Session | None:
        """The session of a cookie, or None where it has ended."""
        session = self._sessions.get(id)
        if session is not None and session.ends < self._clock():
            self.end(id)
            return None
        return session

    def end(self, id: str) -> None:
        """Forget a session."""
        self._sessions.pop(id, None)
