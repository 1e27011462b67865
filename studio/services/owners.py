"""Who owns a job or a picture: a signed-in user, a browser, or a program that calls the web API.

The server makes a token on a browser's first visit, and the browser keeps it.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from typing import Protocol

from studio.library.retention import ANONYMOUS

MAX_SESSIONS = 4096  # first visits whose token is remembered until their browsers send it
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # the form of secrets.token_urlsafe(32)


class Caller(Protocol):
    """The part of a gr.Request that names its sender."""

    @property
    def username(self) -> str | None: ...

    @property
    def session_hash(self) -> str | None: ...


class Owners:
    """Finds the owner of a request. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new_tokens: OrderedDict[str, str] = OrderedDict()  # by session

    def of_page(self, request: Caller, token: object) -> tuple[str, str]:
        """Return the owner, and the token that the browser must keep.

        A browser without a valid token gets a new one. All requests of its session get the same one, also those
        sent before it arrives.
        """
        valid = token if isinstance(token, str) and _TOKEN.fullmatch(token) else self._new_token(request.session_hash)
        return (f"user:{request.username}" if request.username else f"browser:{valid}"), valid

    @staticmethod
    def of_call(request: Caller | None) -> str:
        """Return the owner of what a program asks for."""
        if request is not None and request.username:
            return f"user:{request.username}"
        return f"{ANONYMOUS}{(request and request.session_hash) or secrets.token_urlsafe(16)}"

    def _new_token(self, session: str | None) -> str:
        with self._lock:
            token = self._new_tokens.pop(session or "", None) or secrets.token_urlsafe(32)
            if session:
                self._new_tokens[session] = token
            while len(self._new_tokens) > MAX_SESSIONS:
                self._new_tokens.popitem(last=False)
            return token
