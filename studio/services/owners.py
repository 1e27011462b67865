"""Whose jobs and pictures these are: a user who signed in, a browser, or a program that calls.

A browser is known by a token that the server makes on its first visit and the browser keeps. Knows nothing of Gradio
but the name and the session of a request.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from typing import Protocol

from studio.library.journal import ANONYMOUS

SESSIONS = 4096  # first visits whose token is remembered, until their browsers bring it along
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # what secrets.token_urlsafe(32) gives


class Asking(Protocol):
    """A gr.Request, as far as it matters here."""

    username: str | None
    session_hash: str | None


class Owners:
    """Tells who asks. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[str, str] = OrderedDict()  # token by session

    def of_page(self, request: Asking, token: object) -> tuple[str, str]:
        """The owner, and the token that the browser is to keep.

        A browser that brings none is given one. Whatever it does before it has received it, it gets the same one.
        """
        known = token if isinstance(token, str) and _TOKEN.fullmatch(token) else self._token(request.session_hash)
        return (f"user:{request.username}" if request.username else f"browser:{known}"), known

    @staticmethod
    def of_call(request: Asking | None) -> str:
        """The owner of what a program asks for."""
        if request is not None and request.username:
            return f"user:{request.username}"
        return f"{ANONYMOUS}{(request and request.session_hash) or secrets.token_urlsafe(16)}"

    def _token(self, session: str | None) -> str:
        with self._lock:
            made = self._made.pop(session or "", None) or secrets.token_urlsafe(32)
            if session:
                self._made[session] = made
            while len(self._made) > SESSIONS:
                self._made.popitem(last=False)
            return made
