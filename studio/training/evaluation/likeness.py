"""How alike two sets of pictures are: the Fréchet distance of their features, and how near each lies to others.

Knows tensors alone.
"""

from __future__ import annotations

import torch


def frechet_distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of (N, D) and (M, D): the squared distance between the normal distributions with their means and covariances.

    arXiv 1706.08500, eq. 6 (there in Inception's features). It falls with N and M even between sets of one
    distribution: compare at the same numbers, and with the distance between two real sets.
    """
    ours, theirs = ours.double(), theirs.double()
    spread, other = torch.cov(ours.T, correction=0), torch.cov(theirs.T, correction=0)
    values, vectors = torch.linalg.eigh(spread)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # tr (A B)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), which is symmetric
    shared = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    means = (ours.mean(0) - theirs.mean(0)).square().sum()
    return max((means + spread.trace() + other.trace() - 2 * shared).item(), 0.0)


def nearest(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(N,) Euclidean distance of each of (N, D) to the nearest of (M, D)."""
    return torch.cat([torch.cdist(part, others).amin(1) for part in rows.split(256)])


def nearer_than_usual(distances: torch.Tensor, usual: torch.Tensor, share: float = 0.05) -> torch.Tensor:
    """(N,) bool: which of the distances are below the `share` quantile of the usual ones."""
    return distances < usual.quantile(share)
