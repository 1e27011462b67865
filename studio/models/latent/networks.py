"""The networks of a latent model, called with inputs of many pictures at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from studio.models.latent.preview import to_rgb
from studio.models.loader import LoadedModel

MAX_VAE_PIXELS = 1280 * 1280  # of a picture that the VAE takes at once; 4 KB each in float32
MAX_VAE_TILE = 64  # latent px, 512 px of Stable Diffusion


class Conditioning(NamedTuple):
    """What conditions a prediction, apart from the sample."""

    text: Tensor  # (77, D)
    pooled: Tensor | None = None  # (E,), of SDXL
    time_ids: Tensor | None = None  # (6,) or (5,), size and crop of SDXL


class UNetInput(NamedTuple):
    """One row of a call of the U-Net."""

    sample: Tensor  # (C, h, w)
    timestep: float  # in train steps
    conditioning: Conditioning
    class_label: int | None = None  # noise level of the x4 upscaler
    guidance_embedding: Tensor | None = None  # (G,), of networks that take the guidance scale as an input


class Networks:
    """The U-Net and the VAE of one loaded model.

    preview_matrix: (C + 1, 3), see `studio.models.latent.preview`; None: no previews.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self.model_id, self.unet, self.vae = loaded.entry.id, loaded.unet, loaded.vae
        self.device = torch.device(loaded.placement.device)
        self.dtype: torch.dtype = getattr(torch, loaded.placement.dtype)
        config = self.vae.config
        self.scaling_factor = float(config.scaling_factor)
        self.latent_channels = int(config.latent_channels)
        self.vae_scale = 2 ** (len(config.block_out_channels) - 1)  # px per latent px
        self.preview_matrix: Tensor | None = None
        # As in the stock pipelines: the VAEs of SDXL and of the x4 upscaler overflow in float16.
        is_xl_or_x4 = self.unet.config.addition_embed_type == "text_time" or self.unet.config.num_class_embeds
        if is_xl_or_x4 and config.force_upcast and self.vae.dtype == torch.float16:
            self.vae.float()

    def vae_tile_size(self, height: int, width: int) -> int | None:
        """Return the side of the VAE's tiles in latent px for latents (height, width); None: one tile covers all."""
        if not self._loaded.placement.vae_tiling and height * width * self.vae_scale**2 <= MAX_VAE_PIXELS:
            return None
        return min(self.vae.config.sample_size // self.vae_scale, MAX_VAE_TILE)

    def preview(self, latents: Tensor) -> Tensor | None:
        """Return latents (C, h, w) as RGB (3, h, w) in about [-1, 1], by a linear map."""
        return None if self.preview_matrix is None else to_rgb(latents, self.preview_matrix)

    def predict(self, inputs: Sequence[UNetInput]) -> Tensor:
        """Return the predictions (N, C, h, w), float32, for N inputs of one shape."""
        options: dict[str, Any] = {}
        pooled, time_ids, labels, embeddings = [], [], [], []
        for each in inputs:
            if each.conditioning.pooled is not None and each.conditioning.time_ids is not None:
                pooled.append(each.conditioning.pooled)
                time_ids.append(each.conditioning.time_ids)
            if each.class_label is not None:
                labels.append(each.class_label)
            if each.guidance_embedding is not None:
                embeddings.append(each.guidance_embedding)
        if pooled:
            options["added_cond_kwargs"] = {"text_embeds": torch.stack(pooled), "time_ids": torch.stack(time_ids)}
        if labels:
            options["class_labels"] = torch.tensor(labels, device=self.device)
        if embeddings:
            options["timestep_cond"] = torch.stack(embeddings)
        return self.unet(
            torch.stack([each.sample for each in inputs]).to(self.dtype),
            torch.tensor([each.timestep for each in inputs], device=self.device),
            encoder_hidden_states=torch.stack([each.conditioning.text for each in inputs]),
            return_dict=False,
            **options,
        )[0].float()

    def encode(self, pictures: Sequence[Tensor]) -> tuple[Tensor, list[bool]]:
        """Return the moments (N, 2 C, h, w), float32, of N pictures (3, H, W) in [-1, 1]; see `_in_float32_if_needed`.

        Raises ArithmeticError.
        """
        return self._in_float32_if_needed(_encode, torch.stack(list(pictures)).to(self.device))

    def decode(self, latents: Sequence[Tensor]) -> tuple[Tensor, list[bool]]:
        """Return pictures (N, 3, H, W), float32, of N scaled latents (C, h, w); see `_in_float32_if_needed`.

        Raises ArithmeticError, also if the latents are not finite.
        """
        batch = torch.stack(list(latents)).to(self.device) / self.scaling_factor
        if not batch.isfinite().all():
            raise ArithmeticError("the U-Net computed values that are not numbers; another sampler may help")
        return self._in_float32_if_needed(_decode, batch)

    def _in_float32_if_needed(self, call: Callable[[Any, Tensor], Tensor], batch: Tensor) -> tuple[Tensor, list[bool]]:
        """Call the VAE with N inputs. Return its N outputs in float32, and which of them needed float32.

        If an output is not finite, the VAE computes all again in float32, and stays in it.
        Raises ArithmeticError if an output is not finite even so.
        """
        outputs = call(self.vae, batch)
        overflowed = [not bool(output.isfinite().all()) for output in outputs]
        if any(overflowed) and self.vae.dtype != torch.float32:
            self.vae.float()
            outputs = call(self.vae, batch)
        if not outputs.isfinite().all():
            raise ArithmeticError("the VAE computed values that are not numbers, in float32 too")
        return outputs, overflowed


def _encode(vae: Any, pictures: Tensor) -> Tensor:
    return vae.encode(pictures.to(vae.dtype)).latent_dist.parameters.float()


def _decode(vae: Any, latents: Tensor) -> Tensor:
    return vae.decode(latents.to(vae.dtype), return_dict=False)[0].float()
