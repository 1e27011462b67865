import pytest
import torch

from studio.training.evaluation.similarity import below_quantile, frechet_distance, nearest_distances


def normal(mean: torch.Tensor, covariance: torch.Tensor, count: int = 500) -> torch.Tensor:
    """Return (count, D) with exactly this mean and covariance."""
    rows = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = rows - rows.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(rows.T, correction=0)), rows.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ white).T + mean


def test_no_distance_to_itself():
    rows = torch.randn(40, 60)  # fewer rows than dimensions: the covariance is singular
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(rows, rows.flip(0)) == pytest.approx(0, abs=1e-4)


def test_closed_form_of_normal_distributions():
    one = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    two = torch.tensor([[1.0, -0.5], [-0.5, 3.0]], dtype=torch.float64)
    product = one @ two
    root = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()  # trace of a 2 x 2 matrix's square root
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    truth = (5 + one.trace() + two.trace() - 2 * root).item()
    assert frechet_distance(normal(0 * mean, one), normal(mean, two)) == pytest.approx(truth)
    assert frechet_distance(normal(mean, two, 900), normal(0 * mean, one)) == pytest.approx(truth)


def test_closed_form_of_diagonal_covariances():
    deviations = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    zero, one = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    distance = frechet_distance(normal(zero, one), normal(zero, torch.diag(deviations**2)))
    assert distance == pytest.approx((deviations - 1).square().sum().item())


def test_the_nearest_of_a_copy_is_at_distance_zero():
    references = torch.rand(300, 12, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([references[[7, 100]], references[[3]] + 5])
    distances = nearest_distances(rows, references)
    assert distances[:2].max() < 1e-3 and distances[2] > 10
    assert torch.allclose(distances, (rows[:, None] - references).norm(dim=2).amin(1), atol=1e-3)


def test_copies_are_below_the_quantile():
    usual = torch.linspace(1, 2, 1000)
    assert below_quantile(usual, usual).float().mean().item() == pytest.approx(0.05, abs=0.002)
    assert below_quantile(torch.zeros(9), usual).all() and not below_quantile(usual + 1, usual).any()
