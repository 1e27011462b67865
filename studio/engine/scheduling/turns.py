"""The order of the queue: turns go round the parties. A party is an address, or an owner whose address is unknown.

So an address gets no more turns with a hundred owners than with one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

from studio.engine.active_job import ActiveJob


def in_turns(queued: Sequence[ActiveJob], busy: Sequence[ActiveJob]) -> list[ActiveJob]:
    """Return the queued jobs in the order in which they start: round the parties, and in each round its owners.

    queued: in the order of their owners.
    busy: the jobs that run or are being saved. Each of them is a turn that its party and its owner have had.
    """
    owners_turns = _turns(queued, busy, lambda active: (active.job.party, active.job.owner))
    of_parties = sorted(queued, key=lambda active: (owners_turns[active], active.job.order))
    parties_turns = _turns(of_parties, busy, lambda active: active.job.party)
    return sorted(queued, key=lambda active: (parties_turns[active], active.job.order))


def _turns(
    queued: Sequence[ActiveJob], busy: Iterable[ActiveJob], group: Callable[[ActiveJob], Hashable]
) -> dict[ActiveJob, int]:
    """Return how many jobs of its group come before each queued job."""
    turns, counts = dict[ActiveJob, int](), Counter(map(group, busy))
    for active in queued:
        turns[active] = counts[group(active)]
        counts[group(active)] += 1
    return turns
