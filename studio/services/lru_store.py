"""A store of a few objects by keys that cannot be guessed."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Any


class LRUStore:
    """A thread-safe store that evicts the least recently used object."""

    def __init__(self, max_size: int) -> None:
        self._max_size, self._lock = max_size, threading.Lock()
        self._objects: OrderedDict[str, Any] = OrderedDict()

    def put(self, thing: Any) -> str:
        """Store an object and return its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._objects[key] = thing
            while len(self._objects) > self._max_size:
                self._objects.popitem(last=False)
        return key

    def get(self, key: object) -> Any | None:
        """Return the object of a key; None if there is none, or it was evicted."""
        with self._lock:
            if not isinstance(key, str) or key not in self._objects:
                return None
            self._objects.move_to_end(key)
            return self._objects[key]
