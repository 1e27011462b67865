"""A small network that learns points in the plane within seconds, by the studio's own schedule, loss and sampler.

Knows clouds of points (plane.py); knows nothing of pages, or of who holds the training between two looks at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from studio.diffusion.guidance import apply_guidance
from studio.diffusion.noise_process import to_original_and_noise, velocity
from studio.diffusion.schedulers.sampling_plan import SamplingPlan, multistep_update
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.lab.plane import EXTENT, PointCloud

ANYTHING = 2  # the class of a point whose class is not told
Field = Callable[[torch.Tensor, torch.Tensor, "int | None"], torch.Tensor]  # (x_t (B, 2), t, label) -> v (B, 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small are fastest on one thread, by far so on a busy machine. Other threads keep their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class PointNetwork(nn.Module):
    """v for points (B, 2) at log-SNR (B,) and class (B,): an MLP over waves of the position (arXiv 2006.10739)."""

    def __init__(self, width: int = 128, waves: int = 32) -> None:
        super().__init__()
        self.register_buffer("waves", 1.5 * torch.randn(2, waves))
        self.register_buffer("beats", torch.linspace(0.1, 1.2, 8))
        self.of_class = nn.Embedding(3, 16)
        self.enter = nn.Linear(2 + 2 * waves + 2 * 8 + 16, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.leave = nn.Linear(width, 2)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        place, beat = x @ self.waves, log_snr[:, None] * self.beats
        told = torch.cat([x, place.sin(), place.cos(), beat.sin(), beat.cos(), self.of_class(label)], -1)
        h = self.enter(told)
        for layer in self.layers:
            h = h + layer(nn.functional.silu(h))
        return self.leave(nn.functional.silu(h))


class PointModel:
    """A training that can be left and taken up again: the object is its state.

    Args:
        cloud: what to learn.
        seed: of the weights, the times and the noise.
    """

    def __init__(self, cloud: PointCloud, seed: int = 0, batch: int = 512, learning_rate: float = 2e-3) -> None:
        self.cloud, self.batch = cloud, batch
        self.scheduler = StudioScheduler.from_config(STUDIO_CONFIG)
        self.schedule = self.scheduler.schedule
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network, self.average = PointNetwork(), PointNetwork()
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate, betas=(0.9, 0.99))
        self.points, self.labels = torch.from_numpy(cloud.points), torch.from_numpy(cloud.labels)
        self.losses: list[float] = []

    @property
    def steps(self) -> int:
        return len(self.losses)

    def train(self, seconds: float = 1.0, steps: int | None = None) -> Iterator[float]:
        """The loss of one step after another, for so long or for so many; leave it any time."""
        until = time.monotonic() + seconds
        while (time.monotonic() < until) if steps is None else steps > 0:
            steps = None if steps is None else steps - 1
            self.losses.append(self._step())
            yield self.losses[-1]

    @one_thread()
    def _step(self) -> float:
        """The mean squared error of the velocity, as studio.training.train has it, in two dimensions."""
        g, size = self.generator, self.batch
        chosen = torch.randint(len(self.points), (size,), generator=g)
        x0 = self.points[chosen]
        dropped = torch.rand(size, generator=g) < 0.2  # these are learned without their class
        label = torch.where(dropped, ANYTHING, self.labels[chosen])
        # logit-normal times (arXiv 2403.03206), a tenth of them uniform
        normal = torch.sigmoid(1.2 * torch.randn(size, generator=g))
        t = torch.where(torch.rand(size, generator=g) < 0.1, torch.rand(size, generator=g), normal)
        t = t * (len(self.schedule) - 1)
        eps = torch.randn(x0.shape, generator=g)
        alpha, sigma = (part[:, None] for part in self.schedule.alpha_sigma(t))
        predicted = self.network(alpha * x0 + sigma * eps, self.schedule.log_snr(t), label)
        loss = (predicted - velocity(x0, eps, alpha, sigma)).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        keep = min(0.995, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        return loss.item()

    @one_thread()
    @torch.no_grad()
    def field(self, x_t: torch.Tensor, t: torch.Tensor, label: int | None = None) -> torch.Tensor:
        """The velocity (B, 2) that the averaged network sees at x_t (B, 2) and t (B,) or (1,)."""
        classes = torch.full((len(x_t),), ANYTHING if label is None else label)
        return self.average(x_t, self.schedule.log_snr(t.float()).expand(len(x_t)), classes)


@dataclass(frozen=True)
class GuidanceTarget:
    """Which class to paint, and how hard: v = v_away + scale (v_label - v_away); None stands for either class."""

    label: int | None = None
    away: int | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("label", self.label), ("away", self.away)):
            if value not in (None, 0, 1):
                raise ValueError(f"{name} is {value!r}; it must be 0, 1 or nothing")
        if not 0 <= self.scale <= 20:
            raise ValueError(f"guidance is {self.scale}; it must be between 0 and 20")

    def __call__(self, field: Field, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        toward = field(x_t, t, self.label)
        if self.scale == 1 or self.label == self.away:
            return toward
        return apply_guidance(field(x_t, t, self.away), toward, self.scale)


ANY_POINT = GuidanceTarget()


def reverse_paths(
    field: Field, plan: SamplingPlan, start: torch.Tensor, aim: GuidanceTarget = ANY_POINT
) -> tuple[torch.Tensor, torch.Tensor]:
    """From noise (P, 2) to points by the studio's multistep sampler: x (N + 1, P, 2) and predictions x0 (N, P, 2)."""
    x, xs, predictions = start, [start], []
    for i in range(len(plan)):
        v = aim(field, x, plan.timesteps[i : i + 1])
        alpha, sigma = (level[i].to(x) for level in (plan.alphas, plan.sigmas))
        x0, _ = to_original_and_noise(v, x, alpha, sigma, "v_prediction")
        predictions.append(x0)
        x = multistep_update(x, predictions[::-1], float(plan.a[i]), plan.b[i].tolist())
        xs.append(x)
    return torch.stack(xs), torch.stack(predictions)


def forward_paths(plan: SamplingPlan, x0: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """From points (P, 2) to noise, (N + 1, P, 2), along the same levels: a random walk, x_t = r x_s + q eps with
    r = alpha_t / alpha_s and q^2 = sigma_t^2 - r^2 sigma_s^2 (Kingma et al. 2021, arXiv 2107.00630, equation 20)."""
    levels = list(zip(plan.alphas.tolist(), plan.sigmas.tolist(), strict=True))[::-1]
    (alpha_s, sigma_s), x = levels[0], x0
    if sigma_s:
        x = alpha_s * x0 + sigma_s * torch.randn(x0.shape, generator=generator)
    walk = [x]
    for alpha, sigma in levels[1:]:
        r = alpha / alpha_s
        q = max(sigma**2 - r**2 * sigma_s**2, 0.0) ** 0.5
        x = r * x + q * torch.randn(x0.shape, generator=generator)
        walk.append(x)
        alpha_s, sigma_s = alpha, sigma
    return torch.stack(walk)


def flow_arrows(
    field: Field, plan: SamplingPlan, side: int = 15, aim: GuidanceTarget = ANY_POINT
) -> tuple[torch.Tensor, torch.Tensor]:
    """The flow on a grid (side^2, 2), and -v there at every step (N, side^2, 2).

    With alpha = cos phi and sigma = sin phi the flow that carries points from data to noise is dx / dphi = v
    (Salimans & Ho 2022, arXiv 2202.00512, appendix D), so that -v is where a point goes next.
    """
    axis = torch.linspace(-EXTENT * 0.92, EXTENT * 0.92, side)
    grid = torch.cartesian_prod(axis, axis)  # (side^2, 2)
    return grid, torch.stack([-aim(field, grid, plan.timesteps[i : i + 1]) for i in range(len(plan))])


def near_share(samples: np.ndarray, cloud: PointCloud, within: float = 0.15) -> float:
    """The share of samples (P, 2) that lie within a distance of some point of the cloud."""
    distance = torch.cdist(torch.as_tensor(samples, dtype=torch.float32), torch.from_numpy(cloud.points))
    return float((distance.min(1).values <= within).float().mean())
