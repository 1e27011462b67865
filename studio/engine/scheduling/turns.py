"""The order of the queue: turns go round the parties. A party is an address, or an owner whose address is unknown.

So an address gets no more turns with a hundred owners than with one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from studio.engine.active_job import ActiveJob


def in_turns(
    queued: Sequence[ActiveJob], busy: Sequence[ActiveJob], last_turns: Mapping[Hashable, int]
) -> list[ActiveJob]:
    """Return the queued jobs in the order in which they start: round the parties, and in each round its owners.

    queued: in the order of their owners.
    busy: the jobs that run or are being saved. Each of them is a turn that its party and its owner have had.
    last_turns: numbers of the last starts of parties and owners, by `party_of` and `owner_of`, or of the last start
        of all before they came. Of those with equally many turns, the one whose number is lowest comes first.
    """
    ordered = queued
    for group in (owner_of, party_of):
        turns = _turns(ordered, busy, group)
        keys = {active: (turns[active], last_turns[group(active)], active.job.order) for active in queued}
        ordered = sorted(queued, key=keys.__getitem__)
    return list(ordered)


def party_of(active: ActiveJob) -> str:
    return active.job.party


def owner_of(active: ActiveJob) -> tuple[str, str]:
    return active.job.party, active.job.owner


def _turns(
    queued: Sequence[ActiveJob], busy: Iterable[ActiveJob], group: Callable[[ActiveJob], Hashable]
) -> dict[ActiveJob, int]:
    """Return how many jobs of its group come before each queued job."""
    turns, counts = dict[ActiveJob, int](), Counter(map(group, busy))
    for active in queued:
        turns[active] = counts[group(active)]
        counts[group(active)] += 1
    return turns
