"""Similarity of two sets of pictures: Fréchet distance of their features, and nearest neighbours."""

from __future__ import annotations

import torch


def frechet_distance(features: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the Fréchet distance between features (N, D) and (M, D): arXiv 1706.08500, equation 6.

    It is the squared distance between the normal distributions with these means and covariances. It falls with N and M
    even between sets of one distribution: compare at equal numbers, and with the distance between two real sets.
    """
    features, reference = features.double(), reference.double()
    covariance, reference_covariance = (torch.cov(part.T, correction=0) for part in (features, reference))
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # tr (A B)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), which is symmetric
    shared = torch.linalg.eigvalsh(root @ reference_covariance @ root).clamp(min=0).sqrt().sum()
    means = (features.mean(0) - reference.mean(0)).square().sum()
    return max((means + covariance.trace() + reference_covariance.trace() - 2 * shared).item(), 0.0)


def nearest_distances(rows: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return (N,): the Euclidean distance of each of (N, D) to the nearest of (M, D)."""
    return torch.cat([torch.cdist(part, references).amin(1) for part in rows.split(256)])


def below_quantile(distances: torch.Tensor, usual: torch.Tensor, share: float = 0.05) -> torch.Tensor:
    """Return (N,) bool: which distances are below this quantile of the usual ones."""
    return distances < usual.quantile(share)
