"""The loop of the pipelines' `__call__`: all steps of all pictures, diffusers' callbacks, the output type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

from studio.diffusion.sampling.state import SampleState

if TYPE_CHECKING:
    from studio.diffusion.pipelines.base import StudioPipeline


def run_loop(
    pipeline: StudioPipeline,
    rows: list[SampleState],
    *,
    guidance_scale: float,
    output_type: str,
    return_dict: bool,
    callback_on_step_end: Callable[..., dict] | None,
    callback_on_step_end_tensor_inputs: Sequence[str],
) -> ImagePipelineOutput | tuple:
    """Denoise and decode all pictures, as `DiffusionPipeline.__call__` does. The arguments are diffusers'.

    A callback gets tensors (B, 3, H, W) and embeddings (B, L, D), or lists where sizes differ, of the pictures that
    are not finished. It may return other "latents", and set `_guidance_scale` and `_interrupt`.

    output_type "latent" returns the last samples (B, 3, H, W), before cropping, scaling and pasting.
    """
    if output_type not in ("pil", "np", "pt", "latent"):
        raise ValueError(f"output_type is {output_type!r}; it must be one of pil, np, pt, latent")
    if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
        callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
    for name in callback_on_step_end_tensor_inputs:
        if name not in pipeline._callback_tensor_inputs:
            allowed = ", ".join(pipeline._callback_tensor_inputs)
            raise ValueError(f"callback_on_step_end_tensor_inputs has {name!r}; it may have {allowed}")
    pipeline._interrupt, pipeline._guidance_scale, number = False, guidance_scale, 0
    pipeline._num_timesteps = max(row.num_steps for row in rows)
    with pipeline.progress_bar(total=pipeline._num_timesteps) as bar:
        remaining = [row for row in rows if not row.finished]
        while remaining and not pipeline._interrupt:
            time = remaining[0].time
            pipeline.denoise_step(remaining)
            bar.update()
            if callback_on_step_end is not None:
                tensors = _callback_tensors(remaining)
                inputs = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                scale = pipeline._guidance_scale
                outputs = callback_on_step_end(pipeline, number, time, inputs) or {}
                for row, sample in zip(remaining, outputs.get("latents", tensors["latents"]), strict=True):
                    row.stage.sample = sample
                    if pipeline._guidance_scale != scale:
                        # In diffusers a scale of 1 or less means no guidance.
                        row.stage.guidance = replace(row.stage.guidance, scale=max(pipeline._guidance_scale, 1.0))
            number += 1
            remaining = [row for row in rows if not row.finished]  # sizes differ, and so do numbers of steps
    pipeline.maybe_free_model_hooks()
    if output_type == "latent":
        samples = [row.sample for row in rows]
        images = torch.stack(samples) if len({sample.shape for sample in samples}) == 1 else samples
        return ImagePipelineOutput(images=images) if return_dict else (images,)
    images: Any = [pipeline.decode(row) for row in rows]
    if output_type != "pil":
        if len({image.size for image in images}) > 1:
            raise ValueError(f"output_type is {output_type!r}; pictures of several sizes can only be had as pil")
        images = np.stack([np.asarray(image, dtype=np.float32) / 255 for image in images])  # (B, H, W, 3)
    if output_type == "pt":
        images = torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, 3, H, W) in [0, 1]
    return ImagePipelineOutput(images=images) if return_dict else (images,)


def _callback_tensors(rows: Sequence[SampleState]) -> dict[str, Any]:
    """Return what a callback may ask for: a tensor for all pictures, or a list where sizes differ."""
    tensors: dict[str, Any] = {
        "latents": [row.sample for row in rows],
        "pred_original_sample": [row.pred_original_sample for row in rows],
        "prompt_embeds": [row.text.prompt for row in rows],
    }
    for name, values in tensors.items():
        if len({value.shape for value in values}) == 1:
            tensors[name] = torch.stack(values)
    return tensors
