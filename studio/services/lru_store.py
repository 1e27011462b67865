"""A store of a few objects by keys that cannot be guessed."""

from __future__ import annotations

import math
import secrets
import threading
from collections import OrderedDict
from typing import Any


class LRUStore:
    """A thread-safe store that evicts the least recently used objects, but never the one that was stored last.

    max_size: of objects. max_bytes: of all objects together.
    """

    def __init__(self, max_size: int, max_bytes: float = math.inf) -> None:
        self._max_size, self._max_bytes, self._lock = max_size, max_bytes, threading.Lock()
        self._objects: OrderedDict[str, tuple[Any, int]] = OrderedDict()  # with their bytes
        self._bytes = 0

    def put(self, thing: Any, size: int = 0) -> str:
        """Store an object of so many bytes and return its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._objects[key] = (thing, size)
            self._bytes += size
            while len(self._objects) > 1 and (len(self._objects) > self._max_size or self._bytes > self._max_bytes):
                _, (_, evicted) = self._objects.popitem(last=False)
                self._bytes -= evicted
        return key

    def get(self, key: object) -> Any | None:
        """Return the object of a key; None if there is none, or it was evicted."""
        with self._lock:
            if not isinstance(key, str) or key not in self._objects:
                return None
            self._objects.move_to_end(key)
            return self._objects[key][0]
