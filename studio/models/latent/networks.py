"""The networks of a latent model, called with inputs of many pictures at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from studio.models.latent.preview import to_rgb

VAE_TILE = 64  # latent px


class Conditioning(NamedTuple):
    """What conditions a prediction, apart from the sample."""

    text: Tensor  # (77, D)
    pooled: Tensor | None = None  # (E,), of SDXL
    time_ids: Tensor | None = None  # (6,) or (5,), sizes and crop of SDXL


class UNetInput(NamedTuple):
    """One row of a call of the U-Net."""

    sample: Tensor  # (C, h, w)
    timestep: float  # in train steps
    conditioning: Conditioning
    class_label: int | None = None  # noise level of the x4 upscaler
    guidance_embedding: Tensor | None = None  # (G,), of networks that take the guidance scale as an input


class Networks:
    """The U-Net and the VAE of one loaded model.

    model_id: of the catalog.
    vae_tiling: whether the VAE encodes and decodes in tiles.
    preview_matrix: (C + 1, 3), see `studio.models.latent.preview`; None: no previews.
    """

    def __init__(self, model_id: str, unet: Any, vae: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        self.model_id, self.unet, self.vae, self.device, self.dtype = model_id, unet, vae, device, dtype
        self.scaling_factor = float(vae.config.scaling_factor)
        self.latent_channels = int(vae.config.latent_channels)
        self.vae_scale = 2 ** (len(vae.config.block_out_channels) - 1)  # px per latent px
        self.vae_tiling = False
        self.preview_matrix: Tensor | None = None
        if vae.config.force_upcast and vae.dtype == torch.float16:  # SDXL's overflows in float16
            vae.to(torch.float32)

    @property
    def vae_tile_size(self) -> int | None:
        """Side of the VAE's tiles in latent px; None: it takes a picture at once."""
        return VAE_TILE if self.vae_tiling else None

    def preview(self, latents: Tensor) -> Tensor | None:
        """Return latents (C, h, w) as RGB (3, h, w) in about [-1, 1], by a linear map."""
        return None if self.preview_matrix is None else to_rgb(latents, self.preview_matrix)

    def predict(self, inputs: Sequence[UNetInput]) -> Tensor:
        """Return the predictions (N, C, h, w), float32, for N inputs of one shape."""
        first, device = inputs[0], self.device
        options: dict[str, Any] = {}
        if first.conditioning.pooled is not None:
            options["added_cond_kwargs"] = {
                "text_embeds": torch.stack([each.conditioning.pooled for each in inputs]),  # type: ignore[arg-type]
                "time_ids": torch.stack([each.conditioning.time_ids for each in inputs]),  # type: ignore[arg-type]
            }
        if first.guidance_embedding is not None:
            options["timestep_cond"] = torch.stack([each.guidance_embedding for each in inputs])  # type: ignore
        if first.class_label is not None:
            options["class_labels"] = torch.tensor([each.class_label for each in inputs], device=device)
        return self.unet(
            torch.stack([each.sample for each in inputs]).to(self.dtype),
            torch.tensor([each.timestep for each in inputs], device=device),
            encoder_hidden_states=torch.stack([each.conditioning.text for each in inputs]),
            return_dict=False,
            **options,
        )[0].float()

    def encode(self, pictures: Sequence[Tensor]) -> Tensor:
        """Return the moments (N, 2 C, h, w), float32, of N pictures (3, H, W) in [-1, 1]."""
        batch = torch.stack(list(pictures)).to(self.device, self.vae.dtype)
        return self.vae.encode(batch).latent_dist.parameters.float()

    def decode(self, latents: Sequence[Tensor]) -> tuple[Tensor, list[bool]]:
        """Return pictures (N, 3, H, W), float32, of N latents (C, h, w), and which of them were decoded again.

        A picture that is not finite is decoded again in float32; the VAE stays in float32 from then on.
        Raises ArithmeticError if latents or pictures are not finite even so.
        """
        batch = torch.stack(list(latents)).to(self.device) / self.scaling_factor
        if not batch.isfinite().all():
            raise ArithmeticError("the U-Net computed values that are not numbers; another sampler may help")
        pictures = self._decode(batch)
        overflowed = [not bool(picture.isfinite().all()) for picture in pictures]
        if any(overflowed) and self.vae.dtype != torch.float32:
            self.vae.to(torch.float32)
            pictures = self._decode(batch)
        if not pictures.isfinite().all():
            raise ArithmeticError("the VAE computed values that are not numbers, in float32 too")
        return pictures, overflowed

    def _decode(self, batch: Tensor) -> Tensor:
        return self.vae.decode(batch.to(self.vae.dtype), return_dict=False)[0].float()
