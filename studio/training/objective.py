"""The training objective: the model under training, random times, and the loss of the velocity."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from transformers import CLIPTextModel

from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE, apply_guidance
from studio.diffusion.noise_process import NoiseSchedule, velocity
from studio.diffusion.unet import StudioUNet
from studio.training.data.batches import Batch


class TextFeatures(NamedTuple):
    """Encoded captions."""

    embeddings: torch.Tensor  # (B, L, D)
    mask: torch.Tensor  # (B, L): 1 for tokens, 0 for padding


Predict = Callable[[torch.Tensor, torch.Tensor, Batch, TextFeatures, "torch.Tensor | None"], torch.Tensor]


class TrainingModel(nn.Module):
    """The U-Net with its text encoder: from a noisy batch and encoded captions to the predicted velocity."""

    def __init__(self, unet: StudioUNet, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    @torch.no_grad()
    def encode_text(self, tokens: dict[str, torch.Tensor]) -> TextFeatures:
        """Encode `input_ids` and `attention_mask`, (B, L) each."""
        return TextFeatures(self.text_encoder(**tokens).last_hidden_state, tokens["attention_mask"])

    def forward(
        self,
        x_t: torch.Tensor,
        time: torch.Tensor,
        batch: Batch,
        text: TextFeatures,
        guidance: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the prediction (B, 3, S, S) for x_t (B, 3, S, S) at times (B,); guidance: scales (B,) of one pass."""
        sample = torch.cat([x_t, batch.condition], dim=1)
        return self.unet(sample, time, *text, batch.task, batch.noise_level, guidance).sample


def draw_times(count: int, generator: torch.Generator, last: int) -> torch.Tensor:
    """Draw (count,) real times in [0, last]: logit-normal (arXiv 2403.03206, section 3.1), a tenth of them uniform."""
    normal = torch.sigmoid(1.1 * torch.randn(count, generator=generator) + 0.2)
    uniform = torch.rand(count, generator=generator)
    return last * torch.where(torch.rand(count, generator=generator) < 0.1, uniform, normal)


def velocity_loss(
    predict: Predict,
    batch: Batch,
    text: TextFeatures,
    schedule: NoiseSchedule,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean squared error of the velocity (B,) at random times, and these times (B,)."""
    x_t, target, time = _add_noise(batch, schedule, generator)
    error = predict(x_t, time, batch, text, None).float() - target
    return error.square().mean(dim=(1, 2, 3)), time


def guidance_loss(
    predict: Predict,
    teacher: Predict,
    batch: Batch,
    text: TextFeatures,
    empty_text: TextFeatures,
    *,
    schedule: NoiseSchedule,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of guidance in one pass (B,), and the times (B,) (Meng et al. 2022, arXiv 2210.03142, 3.1).

    The target is the teacher's guided prediction at a random scale: two network calls, with the caption and without.

    Args:
        empty_text: features of "" (one row), as many tokens as `text`.
    """
    count = len(batch.picture)
    x_t, _, time = _add_noise(batch, schedule, generator)
    scale = 1 + (MAX_ONE_PASS_GUIDANCE - 1) * torch.rand(count, generator=generator).to(x_t.device)
    unconditional_text = TextFeatures(*(part.expand(count, *part.shape[1:]) for part in empty_text))
    with torch.no_grad():
        conditional = teacher(x_t, time, batch, text, None).float()
        unconditional = teacher(x_t, time, batch, unconditional_text, None).float()
    target = apply_guidance(unconditional, conditional, scale[:, None, None, None])
    error = predict(x_t, time, batch, text, scale).float() - target
    return error.square().mean(dim=(1, 2, 3)), time


def _add_noise(
    batch: Batch, schedule: NoiseSchedule, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x_t, its velocity (B, 3, S, S) and the times (B,). Random numbers are the CPU's, whatever the device."""
    device = batch.picture.device
    time = draw_times(len(batch.picture), generator, len(schedule) - 1).to(device)
    eps = torch.randn(batch.picture.shape, generator=generator).to(device)
    alpha, sigma = (part[:, None, None, None] for part in schedule.alpha_sigma(time))
    return alpha * batch.picture + sigma * eps, velocity(batch.picture, eps, alpha, sigma), time
