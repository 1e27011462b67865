"""The bundled model family: its capabilities, and the backend that runs its four pipelines for the engine.

Importing this module is cheap: torch and diffusers are imported when a backend is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from studio.engine.requests import Denoise, Inpaint, SuperResolve, TextToImage
from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import TraceModel
from studio.models.capabilities import Capabilities
from studio.models.folders import read_model_info
from studio.models.formats import read_json
from studio.models.loader import load_pipeline
from studio.models.samplers import SAMPLER_LABELS
from studio.prompts.vocabulary import Vocabulary

if TYPE_CHECKING:
    from studio.diffusion.sampling.state import SampleState

STYLES = ("noto", "twemoji", "flat", "glossy")
BACKGROUNDS = ("white", "black", "red", "green", "blue", "yellow", "pink", "purple", "orange", "gray")
REQUEST_ONLY_BACKGROUNDS = ("black", "gray")  # many objects are lost on them, so they must be requested
MAX_RESOLUTION = 512  # px
# Of a tile in a call of many, on two CPU cores.
SECONDS_PER_ROW = 0.016
PRESETS = {
    "live": {"steps": 3, "guidance": 3.0, "sampler": "studio", "one_pass": False, "style_emphasis": False},
    "balanced": {"steps": 10, "guidance": 3.0, "sampler": "studio", "one_pass": False, "style_emphasis": False},
    "best": {"steps": 20, "guidance": 3.0, "sampler": "unipc", "one_pass": False, "style_emphasis": True},
}


def read_capabilities(folder: str | Path) -> Capabilities:
    """Read the capabilities of a model folder from its config and vocabulary; never raises.

    A folder that cannot be read gets the bundled model's: loading it fails later, with a sentence.
    """
    folder = Path(folder)
    vocabulary = Vocabulary.read(folder)
    config: dict[str, Any] = {}
    try:
        config = read_json(folder / "unet" / "config.json")
        sample_size = int(config["sample_size"])
        tile_size = max(sample_size, int(config.get("window_size", 0)))
    except (OSError, ValueError, KeyError, TypeError):
        sample_size, tile_size = 32, 64
    resolutions = [tile_size]
    while resolutions[-1] * 2 <= MAX_RESOLUTION:
        resolutions.append(resolutions[-1] * 2)
    styles = (vocabulary.styles if vocabulary else ()) or STYLES
    backgrounds = (vocabulary.backgrounds if vocabulary else ()) or BACKGROUNDS
    return Capabilities(
        model_id=folder.resolve().name,
        name=read_model_info(folder).name,
        tasks=(TextToImage.task, Inpaint.task, SuperResolve.task, Denoise.task),
        samplers=SAMPLER_LABELS,
        resolutions=tuple(resolutions),
        default_resolution=tile_size,
        # The templates are the phrases of the training captions: always "a", also before a vowel.
        styles={style: f"{{prompt}}, {style} style" for style in styles},
        backgrounds={color: f"{{prompt}} on a {color} background" for color in backgrounds},
        request_only_backgrounds=REQUEST_ONLY_BACKGROUNDS,
        vocabulary=vocabulary,
        one_pass_guidance=(1.0, 5.0) if config.get("guidance_rank") else None,
        style_emphasis=True,
        presets=PRESETS,
        live_preset="live",
        sample_size=sample_size,
        tile_size=tile_size,
        seconds_per_row=SECONDS_PER_ROW,
    )


def load_backend(folder: str | Path, device: str = "auto") -> StudioBackend:
    """Load the backend of a model folder; see `load_pipeline`. Raises ModelError."""
    return StudioBackend(load_pipeline(folder, device), Path(folder).resolve().name)


class StudioBackend:
    """The engine's `Backend` protocol over a StudioTextToImagePipeline and the three others of its components."""

    def __init__(self, pipeline: Any, model_id: str = "") -> None:
        from studio.diffusion.guidance import STYLE_EMPHASIS
        from studio.diffusion.pipelines import StudioDenoisePipeline, StudioInpaintPipeline, StudioUpscalePipeline

        self.pipeline, self._emphasis = pipeline, STYLE_EMPHASIS
        # Not by `from_pipe`, which warns of modules kept in float32 although there are none.
        self._inpaint = StudioInpaintPipeline(**pipeline.components)
        self._upscale = StudioUpscalePipeline(**pipeline.components)
        self._denoise = StudioDenoisePipeline(**pipeline.components)
        self.trace_model = TraceModel(id=model_id)
        self._tokenizer = threading.Lock()  # a fast tokenizer stores settings of a call: one thread at a time

    @property
    def device(self) -> str:
        """The network's device: "cpu", "cuda:0" ..."""
        return str(self.pipeline.device)

    def prepare(self, resolved: ResolvedRequest) -> list[SampleState]:
        """Return one row per picture, in the order of `resolved.seeds`."""
        request = resolved.request
        with self._tokenizer:
            if isinstance(request, TextToImage):
                return self._prepare_text_to_image(request, resolved)
            if isinstance(request, Inpaint):
                return self._prepare_inpaint(request, resolved)
            if isinstance(request, SuperResolve):
                return self._prepare_super_resolve(request, resolved)
            return self._prepare_denoise(request, resolved)

    def _prepare_text_to_image(self, request: TextToImage, resolved: ResolvedRequest) -> list[SampleState]:
        return self.pipeline.prepare(
            resolved.captions,
            negative_prompts=_negative_prompts(resolved),
            num_inference_steps=request.steps,
            guidance_scale=float(request.guidance),
            seeds=resolved.seeds,
            sampler=request.sampler,
            size=request.resolution,
            images=None if request.image is None else [request.image] * request.count,
            strength=float(request.strength),
            one_pass=request.one_pass,
            style_emphasis=self._emphasis if request.style_emphasis else 0.0,
        )

    def _prepare_inpaint(self, request: Inpaint, resolved: ResolvedRequest) -> list[SampleState]:
        return self._inpaint.prepare(
            resolved.captions,
            [request.image] * request.count,
            [request.mask] * request.count,
            negative_prompts=_negative_prompts(resolved),
            num_inference_steps=request.steps,
            guidance_scale=float(request.guidance),
            seeds=resolved.seeds,
            sampler=request.sampler,
            whole_picture=request.area == "whole",
            grow=request.grow,
            feather=request.feather,
            invert=request.invert,
        )

    def _prepare_super_resolve(self, request: SuperResolve, resolved: ResolvedRequest) -> list[SampleState]:
        return self._upscale.prepare(
            [request.image] * request.count,
            request.scale,
            resolved.captions,
            noise_level=request.noise_level,
            negative_prompts=_negative_prompts(resolved),
            num_inference_steps=request.steps,
            guidance_scale=float(request.guidance),
            seeds=resolved.seeds,
            sampler=request.sampler,
            size=request.target,
        )

    def _prepare_denoise(self, request: Denoise, resolved: ResolvedRequest) -> list[SampleState]:
        return self._denoise.prepare(
            [request.image] * request.count,
            [request.sigma] * request.count,
            resolved.captions,
            negative_prompts=_negative_prompts(resolved),
            num_inference_steps=1 if request.method == "mean" else request.steps,
            guidance_scale=float(request.guidance),
            seeds=resolved.seeds,
        )

    def denoise_step(self, rows: Sequence[SampleState]) -> None:
        """Call the network once, with the next tiles of rows of one `call_key`; see `studio.diffusion`'s denoise_call.

        If it raises, no row has advanced.
        """
        self.pipeline.denoise_call(rows)
        device = rows[0].sample.device  # `pipeline.device` searches all modules, which is slow next to a small call
        if device.type in ("cuda", "mps"):
            import torch

            # The engine measures the call's time, so wait until it is done.
            torch.cuda.synchronize(device) if device.type == "cuda" else torch.mps.synchronize()

    def decode(self, row: SampleState) -> Image.Image:
        """Return the picture of a finished row: RGB, or RGBA if its input is."""
        return self.pipeline.decode(row)

    def truncated(self, text: str) -> str:
        """Return the end of the text that the model does not read, "" if it reads all of it."""
        with self._tokenizer:
            return self.pipeline.truncated(text)


def _negative_prompts(resolved: ResolvedRequest) -> list[str] | None:
    """Return one negative prompt per picture, None if there is none."""
    request = resolved.request
    return [request.negative_prompt] * request.count if request.negative_prompt else None
