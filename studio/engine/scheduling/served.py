"""How much of the network calls' time each party has had."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable


class ServedSeconds:
    """The seconds of network calls that each party has had. A party that comes starts with the least of those present.

    So it neither waits until it has had as much as others, nor have others to wait until they have had as much as it.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[Hashable, float] = defaultdict(float)

    def __getitem__(self, party: Hashable) -> float:
        return self._seconds[party]

    def enter(self, party: Hashable, present: Iterable[Hashable]) -> None:
        """Note that a party has rows. present: the parties that had some before."""
        parties = set(present)
        if party in parties or not parties:
            return
        least = min(self._seconds[other] for other in parties)
        self._seconds[party] = max(self._seconds[party], least)
        for other in [other for other, seconds in self._seconds.items() if seconds < least]:
            del self._seconds[other]  # it would start with the least again

    def add(self, party: Hashable, seconds: float) -> None:
        """Add seconds that a party has had."""
        self._seconds[party] += seconds
