"""The bundled model family: its capabilities, and the backend that runs its four pipelines for the engine.

Importing this module is cheap: torch and diffusers are imported when a backend is loaded.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from studio.engine.requests import SCALES, Denoise, Inpaint, Request, SuperResolve, TextToImage
from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import TraceModel
from studio.imaging.areas import MAX_ASPECT
from studio.imaging.tiles import count_tiles
from studio.models.capabilities import Capabilities, NoiseLevel, count_calls
from studio.models.folders import read_title
from studio.models.formats import read_json
from studio.models.loader import load_pipeline
from studio.models.samplers import STUDIO_SAMPLERS, sampler_labels
from studio.prompts.nouns import without_style
from studio.prompts.vocabulary import Vocabulary

if TYPE_CHECKING:
    from studio.diffusion.sampling.state import SampleState

STYLES = ("noto", "twemoji", "flat", "glossy")
BACKGROUNDS = ("white", "black", "red", "green", "blue", "yellow", "pink", "purple", "orange", "gray")
REQUEST_ONLY_BACKGROUNDS = ("black", "gray")  # many objects are lost on them, so they must be requested
MAX_RESOLUTION = 512  # px
MAX_NOISE_LEVEL = 0.3  # standard deviation of the noise on small pictures, as in training
FEW_STEPS = 4  # a run of no more steps is finished in one network call per stage, other runs in two
# Of a tile in a call of many, on two CPU cores.
SECONDS_PER_ROW = 0.016
PRESETS = {
    "live": {"steps": 3, "guidance": 3.0, "sampler": "studio", "one_pass": False, "style_emphasis": False},
    "balanced": {"steps": 10, "guidance": 3.0, "sampler": "studio", "one_pass": False, "style_emphasis": False},
    "best": {"steps": 20, "guidance": 3.0, "sampler": "unipc", "one_pass": False, "style_emphasis": True},
}


@dataclass(frozen=True, kw_only=True)
class StudioCapabilities(Capabilities):
    """What a model of the bundled kind can do.

    default_resolution: the side in px that it chooses itself.
    sample_size, tile_size: sides in px at which text becomes a picture, and of the tiles in larger pictures.
    has_upscaler: whether a network of its own enlarges, one call for each doubling.
    """

    default_resolution: int
    sample_size: int
    tile_size: int
    has_upscaler: bool = False

    def output_size(self, request: Request) -> tuple[int, int]:
        if isinstance(request, SuperResolve):
            return request.output_size
        if isinstance(request, TextToImage):
            width, height = (1, 1) if request.image is None else request.image.size
            side = request.resolution or (self.default_resolution if request.image is None else min(width, height))
            return round(side * width / min(width, height)), round(side * height / min(width, height))
        return request.image.size

    def count_pixels(self, request: Request) -> int:
        pixels = 0
        if isinstance(request, SuperResolve):
            pixels = request.image.width * request.image.height * request.scale**2
        elif isinstance(request, TextToImage) and request.resolution is not None:
            image = request.image
            pixels = round(request.resolution**2 * (max(image.size) / min(image.size) if image is not None else 1.0))
        if request.image is not None:
            pixels = max(pixels, request.image.width * request.image.height)
        return pixels * request.count

    def count_passes(self, request: Request, caption: str) -> int:
        if request.guidance == 1:
            return 1
        if not isinstance(request, TextToImage):
            return 2
        if request.one_pass and self.one_pass_guidance and not request.negative_prompt:
            low, high = self.one_pass_guidance
            if low <= request.guidance <= high:
                return 1
        is_emphasized = self.style_emphasis and request.style_emphasis and request.guidance > 1
        return 3 if is_emphasized and without_style(caption) != caption else 2

    def count_rows(self, request: Request, passes: int) -> int:
        calls = count_calls(request)
        if isinstance(request, SuperResolve):
            if self.has_upscaler and not request.noise_level:
                return self._count_doublings(*request.image.size, request.scale) * request.count
            width, height = request.image.width * request.scale, request.image.height * request.scale
            return count_tiles(height, width, self.tile_size) * calls * passes * request.count
        if isinstance(request, Denoise):
            calls = 1 if request.method == "mean" else calls
            return (
                count_tiles(request.image.height, request.image.width, self.tile_size) * calls * passes * request.count
            )
        # The picture is painted at `sample_size`, then enlarged by two until it has its size.
        ratio, side = 1.0, self.default_resolution
        if request.image is not None and not (isinstance(request, Inpaint) and request.area == "painted"):
            ratio = min(max(request.image.size) / min(request.image.size), float(MAX_ASPECT))
        if isinstance(request, TextToImage) and request.resolution is not None:
            side = request.resolution
        elif request.image is not None:
            side = min(min(request.image.size), 4 * self.sample_size)
        rows = count_tiles(self.sample_size, round(self.sample_size * ratio), self.sample_size) * calls * passes
        if self.has_upscaler and isinstance(request, TextToImage):
            size = round(self.sample_size * ratio), self.sample_size
            return (rows + self._count_doublings(*size, math.ceil(side / self.sample_size))) * request.count
        enlarged = self.sample_size
        while enlarged < side:
            enlarged *= 2
            tiles = count_tiles(enlarged, round(enlarged * ratio), self.tile_size)
            rows += tiles * (1 if request.steps <= FEW_STEPS else 2)
        return rows * request.count

    def _count_doublings(self, width: int, height: int, scale: int) -> int:
        """Return the tiles of all calls of the upscaler that enlarge a picture."""
        rows, factor = 0, 2
        while factor < 2 * scale:
            rows += count_tiles(height * factor, width * factor, self.tile_size)
            factor *= 2
        return rows


def read_capabilities(folder: str | Path) -> StudioCapabilities:
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
    return StudioCapabilities(
        model_id=folder.resolve().name,
        name=read_title(Path(folder)),
        family="studio",
        tasks=(TextToImage.task, Inpaint.task, SuperResolve.task, Denoise.task),
        samplers=sampler_labels(STUDIO_SAMPLERS),
        resolutions=tuple(resolutions),
        size=None,
        default_resolution=tile_size,
        # The templates are the phrases of the training captions: always "a", also before a vowel.
        styles={style: f"{{prompt}}, {style} style" for style in styles},
        backgrounds={color: f"{{prompt}} on a {color} background" for color in backgrounds},
        request_only_backgrounds=REQUEST_ONLY_BACKGROUNDS,
        vocabulary=vocabulary,
        one_pass_guidance=(1.0, 5.0) if config.get("guidance_rank") else None,
        style_emphasis=True,
        scales=SCALES,
        noise_level=NoiseLevel(kind="noise", low=0.0, high=MAX_NOISE_LEVEL, default=SuperResolve.noise_level),
        presets=PRESETS,
        live_preset="live",
        defaults={
            kind.task: {"sampler": kind.sampler, "steps": kind.steps, "guidance": kind.guidance}
            for kind in (TextToImage, Inpaint, SuperResolve)
        },
        sample_size=sample_size,
        tile_size=tile_size,
        has_upscaler=(folder / "upscaler" / "config.json").exists(),
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

    def reduce_memory(self) -> None:
        """There is no setting that needs less memory."""


def _negative_prompts(resolved: ResolvedRequest) -> list[str] | None:
    """Return one negative prompt per picture, None if there is none."""
    request = resolved.request
    return [request.negative_prompt] * request.count if request.negative_prompt else None
