"""A few things that a page may ask for again, by keys that cannot be guessed. Knows nothing of what they are."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Any


class LRUStore:
    """A few things by keys that cannot be guessed; the one not asked for the longest goes first."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._things: OrderedDict[str, Any] = OrderedDict()

    def put(self, thing: Any) -> str:
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._things[key] = thing
            while len(self._things) > self._most:
                self._things.popitem(last=False)
        return key

    def get(self, key: object) -> Any | None:
        with self._lock:
            if not isinstance(key, str) or key not in self._things:
                return None
            self._things.move_to_end(key)
            return self._things[key]
