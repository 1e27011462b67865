"""Render scenes to pictures on the training device, many at once, at any size and crop.

A low-resolution picture and its sharp original are two renderings of one scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from studio.training.data.scenes import BACKGROUND_COLORS, PATTERNS, Scene, SceneObject
from studio.training.data.sprites import Sprites


@dataclass(frozen=True)
class Crop:
    """The square part of a scene that a picture shows. Values are shares of the scene's side."""

    left: float = 0.0
    top: float = 0.0
    side: float = 1.0


class SceneRenderer:
    """Renders scenes as (B, 3, size, size) float32 in [-1, 1] on one device."""

    def __init__(self, sprites: Sprites, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.mip_levels = [sprites.rgba.to(self.device)]  # sampling a large sprite at a small size would alias
        while self.mip_levels[-1].shape[-1] > 16:
            parts = [F.avg_pool2d(part.float(), 2).round().byte() for part in self.mip_levels[-1].split(256)]
            self.mip_levels.append(torch.cat(parts))
        self.mip_sides = torch.tensor([level.shape[-1] for level in self.mip_levels])
        self.mean_luminance = mean_luminance(self.mip_levels[-1].float() / 255)
        self.color_names = list(BACKGROUND_COLORS)
        self.colors = torch.tensor(list(BACKGROUND_COLORS.values()))

    def render(self, scenes: Sequence[Scene], size: int, crops: Sequence[Crop] | None = None) -> torch.Tensor:
        """Return the scenes' pictures; by default each shows its whole scene."""
        crops = crops or [Crop()] * len(scenes)
        crop_values = torch.tensor([(crop.left, crop.top, crop.side) for crop in crops])
        pictures = self._render_backgrounds(scenes, size, crop_values)
        for layer in range(max(len(scene.objects) for scene in scenes)):
            rows = [i for i, scene in enumerate(scenes) if len(scene.objects) > layer]
            rgba = self._render_objects([scenes[i].objects[layer] for i in rows], size, crop_values[rows])
            rows_on_device = torch.tensor(rows, device=self.device)
            pictures[rows_on_device] = rgba[:, :3] + pictures[rows_on_device] * (1 - rgba[:, 3:])
        return pictures.mul_(2).sub_(1).clamp_(-1, 1)

    def _render_objects(self, objects: list[SceneObject], size: int, crops: torch.Tensor) -> torch.Tensor:
        """Return (M, 4, size, size), premultiplied: each object alone. crops: (M, 3)."""
        places = torch.tensor([(item.x, item.y, item.side) for item in objects])
        scale = crops[:, 2] / places[:, 2]  # picture sides per sprite side
        theta = torch.zeros(len(objects), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        theta[:, :, 2] = 2 * (crops[:, :2] + crops[:, 2:] / 2 - places[:, :2]) / places[:, 2:]
        drawn_sides = size / scale  # px of the picture
        level = ((self.mip_sides[None] >= 0.75 * drawn_sides[:, None]).sum(1) - 1).clamp(min=0)
        sprites = torch.tensor([item.sprite for item in objects])
        rgba = torch.empty(len(objects), 4, size, size, device=self.device)
        for number in level.unique().tolist():
            rows = (level == number).nonzero()[:, 0]
            source = self.mip_levels[number][sprites[rows].to(self.device)].float() / 255
            grid = F.affine_grid(theta[rows].to(self.device), [len(rows), 4, size, size], align_corners=False)
            rgba[rows.to(self.device)] = F.grid_sample(source, grid, align_corners=False)
        tinted = [i for i, item in enumerate(objects) if item.tint]
        if tinted:
            colors = torch.tensor([BACKGROUND_COLORS[objects[i].tint or ""] for i in tinted], device=self.device)
            rows = torch.tensor(tinted, device=self.device)
            rgba[rows] = apply_tint(rgba[rows], colors, self.mean_luminance[sprites[tinted].to(self.device)])
        return rgba

    def _render_backgrounds(self, scenes: Sequence[Scene], size: int, crops: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, size, size) in [0, 1]: plain colours, gradients, stripes and dots. crops: (B, 3)."""
        first = self.colors[[self.color_names.index(scene.background) for scene in scenes]]
        second = self.colors[[self.color_names.index(scene.second_background or scene.background) for scene in scenes]]
        jitter = torch.tensor([scene.jitter for scene in scenes])
        color_pair = (torch.stack([first, second]) + jitter).clamp(0, 1).to(self.device)
        pattern = torch.tensor([PATTERNS.index(scene.pattern) for scene in scenes], device=self.device)
        phase = torch.tensor([scene.phase for scene in scenes], device=self.device)[:, None, None]
        steps = (torch.arange(size, device=self.device) + 0.5) / size
        crops = crops.to(self.device)
        x = (crops[:, 0:1] + crops[:, 2:] * steps)[:, None, :]  # (B, 1, W)
        y = (crops[:, 1:2] + crops[:, 2:] * steps)[:, :, None]  # (B, H, 1)
        sharpness = (size / 8 / crops[:, 2])[:, None, None]  # edges of a pattern blend over one pixel
        gradient = y.expand(-1, -1, size)
        stripes = (((x + y) * 4 + phase * 2) % 2 - 1).abs()  # triangle wave
        cell_x, cell_y = ((x * 5 + phase) % 1 - 0.5), ((y * 5 + phase) % 1 - 0.5)
        dots = 1 - (cell_x**2 + cell_y**2).sqrt() / 0.5
        edges = torch.where(pattern[:, None, None] == 2, stripes - 0.5, dots - 0.45) * sharpness + 0.5
        kind = pattern[:, None, None].expand(-1, size, size)
        plain = torch.zeros_like(gradient)
        share = torch.where(kind == 0, plain, torch.where(kind == 1, gradient, edges.clamp(0, 1)))
        return torch.lerp(color_pair[0][:, :, None, None], color_pair[1][:, :, None, None], share[:, None])


def luminance(rgba: torch.Tensor) -> torch.Tensor:
    """Return the luminance of (M, 4, H, W) as (M, 1, H, W); of premultiplied colours it is premultiplied."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722], device=rgba.device)[:, None, None]
    return (rgba[:, :3] * weights).sum(1, keepdim=True)


def mean_luminance(rgba: torch.Tensor) -> torch.Tensor:
    """Return (M,), in [0, 1]: the mean luminance of premultiplied (M, 4, H, W), weighted by alpha."""
    return luminance(rgba).sum((1, 2, 3)) / rgba[:, 3].sum((1, 2)).clamp(min=1e-3)


def apply_tint(rgba: torch.Tensor, color: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Repaint premultiplied (M, 4, H, W) in shades of `color` (M, 3), RGB in [0, 1].

    Luminance runs from black through the colour, at the sprite's mean luminance (M,), to white.
    """
    alpha = rgba[:, 3:]
    light = luminance(rgba) / alpha.clamp(min=1e-3)
    mean = mean.clamp(0.3, 0.8)[:, None, None, None]
    below = (light / mean).clamp(0, 1)
    above = ((light - mean) / (1 - mean)).clamp(0, 1)
    color = color[:, :, None, None]
    return torch.cat([(color * below + (1 - color) * above * 0.85) * alpha, alpha], 1)
