"""A small network that learns points in two dimensions within seconds, with the studio's schedule, loss and sampler."""

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
from studio.lab.plane import EXTENT, PointCloud
from studio.lab.schedules import make_schedule

UNCONDITIONAL = 2  # the class input of a point without a class
VelocityField = Callable[[torch.Tensor, torch.Tensor, "int | None"], torch.Tensor]  # (x_t (B, 2), t, label) -> v (B, 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, the fastest for matrices this small. Other Python threads keep their setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class PointNetwork(nn.Module):
    """v for points (B, 2) at log-SNR (B,) and class (B,): an MLP over Fourier features of the position (arXiv
    2006.10739)."""

    position_frequencies: torch.Tensor
    level_frequencies: torch.Tensor

    def __init__(self, width: int = 128, frequencies: int = 32) -> None:
        super().__init__()
        self.register_buffer("position_frequencies", 1.5 * torch.randn(2, frequencies))
        self.register_buffer("level_frequencies", torch.linspace(0.1, 1.2, 8))
        self.class_embedding = nn.Embedding(3, 16)
        self.input = nn.Linear(2 + 2 * frequencies + 2 * 8 + 16, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, 2)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return v (B, 2)."""
        position, level = x @ self.position_frequencies, log_snr[:, None] * self.level_frequencies
        features = [x, position.sin(), position.cos(), level.sin(), level.cos(), self.class_embedding(label)]
        hidden = self.input(torch.cat(features, -1))
        for layer in self.layers:
            hidden = hidden + layer(nn.functional.silu(hidden))
        return self.output(nn.functional.silu(hidden))


class PointModel:
    """A network and its training, which can pause and continue at any step.

    seed: of the weights, the times and the noise.
    """

    def __init__(self, cloud: PointCloud, seed: int = 0, batch: int = 512, learning_rate: float = 2e-3) -> None:
        self.cloud, self.batch = cloud, batch
        self.scheduler = make_schedule("model")
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
        """Training steps so far."""
        return len(self.losses)

    def train(self, seconds: float = 1.0, steps: int | None = None) -> Iterator[float]:
        """Train for so many seconds, or for so many steps, and yield the loss of each step."""
        end, done = time.monotonic() + seconds, 0
        while done < steps if steps is not None else time.monotonic() < end:
            self.losses.append(self._step())
            done += 1
            yield self.losses[-1]

    @one_thread()
    def _step(self) -> float:
        """Make one step and return its loss: the mean squared error of the velocity, as in studio.training.train."""
        g, size = self.generator, self.batch
        chosen = torch.randint(len(self.points), (size,), generator=g)
        x0 = self.points[chosen]
        dropped = torch.rand(size, generator=g) < 0.2  # learned without their class
        label = torch.where(dropped, UNCONDITIONAL, self.labels[chosen])
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
        ema_decay = min(0.995, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, 1 - ema_decay)
        return loss.item()

    @one_thread()
    @torch.no_grad()
    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, label: int | None = None) -> torch.Tensor:
        """Return the velocity (B, 2) of the averaged network at x_t (B, 2) and t (B,) or (1,)."""
        classes = torch.full((len(x_t),), UNCONDITIONAL if label is None else label)
        return self.average(x_t, self.schedule.log_snr(t.float()).expand(len(x_t)), classes)


@dataclass(frozen=True)
class GuidanceTarget:
    """The class to generate, the class to avoid, and the guidance: v = v_negative + scale (v_label - v_negative).

    None stands for both classes. Raises ValueError for other classes than 0 and 1, and for a scale outside 0 to 20.
    """

    label: int | None = None
    negative_label: int | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("label", self.label), ("negative_label", self.negative_label)):
            if value not in (None, 0, 1):
                raise ValueError(f"{name} is {value!r}; it must be 0, 1 or nothing")
        if not 0 <= self.scale <= 20:
            raise ValueError(f"guidance is {self.scale}; it must be between 0 and 20")

    def __call__(self, velocity_field: VelocityField, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the guided velocity (B, 2)."""
        toward = velocity_field(x_t, t, self.label)
        if self.scale == 1 or self.label == self.negative_label:
            return toward
        return apply_guidance(velocity_field(x_t, t, self.negative_label), toward, torch.tensor(self.scale))


ANY_POINT = GuidanceTarget()


def reverse_paths(
    velocity_field: VelocityField, plan: SamplingPlan, start: torch.Tensor, target: GuidanceTarget = ANY_POINT
) -> tuple[torch.Tensor, torch.Tensor]:
    """Follow the studio's multistep sampler from noise (P, 2) to points.

    Returns x (N + 1, P, 2) and the predictions x0 (N, P, 2) of N steps.
    """
    x, xs, predictions = start, [start], []
    for i in range(len(plan)):
        v = target(velocity_field, x, plan.timesteps[i : i + 1])
        alpha, sigma = (level[i].to(x) for level in (plan.alphas, plan.sigmas))
        x0, _ = to_original_and_noise(v, x, alpha, sigma, "v_prediction")
        predictions.append(x0)
        x = multistep_update(x, predictions[::-1], float(plan.a[i]), plan.b[i].tolist())
        xs.append(x)
    return torch.stack(xs), torch.stack(predictions)


def forward_paths(plan: SamplingPlan, x0: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return random walks (N + 1, P, 2) from points (P, 2) to noise, along the same levels.

    A step is x_t = r x_s + q eps with r = alpha_t / alpha_s and q^2 = sigma_t^2 - r^2 sigma_s^2 (Kingma et al. 2021,
    arXiv 2107.00630, equation 20).
    """
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
    velocity_field: VelocityField, plan: SamplingPlan, side: int = 15, target: GuidanceTarget = ANY_POINT
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a grid (side^2, 2) and the flow there at every step, -v (N, side^2, 2).

    With alpha = cos phi and sigma = sin phi the flow from data to noise is dx / dphi = v (Salimans & Ho 2022, arXiv
    2202.00512, appendix D). So -v points toward the data.
    """
    axis = torch.linspace(-EXTENT * 0.92, EXTENT * 0.92, side)
    grid = torch.cartesian_prod(axis, axis)  # (side^2, 2)
    return grid, torch.stack([-target(velocity_field, grid, plan.timesteps[i : i + 1]) for i in range(len(plan))])


def near_share(samples: np.ndarray, cloud: PointCloud, within: float = 0.15) -> float:
    """Return the share of samples (P, 2) within a distance of some point of the cloud."""
    distance = torch.cdist(torch.as_tensor(samples, dtype=torch.float32), torch.from_numpy(cloud.points))
    return float((distance.min(1).values <= within).float().mean())
