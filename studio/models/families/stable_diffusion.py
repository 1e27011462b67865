"""What the latent model families can do: Stable Diffusion 1 and 2, SDXL and its refiner, the x4 upscaler. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Any

from studio.engine.checks import InvalidRequest, format_megapixels
from studio.engine.requests import MAX_CLIP_SKIP, SCALES, Inpaint, Request, SuperResolve, TextToImage
from studio.imaging.files import MAX_PIXELS
from studio.imaging.tiles import count_tiles
from studio.models.capabilities import Capabilities, NoiseLevel, SizeRange, count_calls
from studio.models.catalog import ModelEntry
from studio.models.formats import read_json
from studio.models.samplers import LATENT_SPACINGS, sampler_labels

UPSCALER = "upscaler-x4"
CLIP_LAYERS = 12  # of CLIP ViT-L, the text encoder of Stable Diffusion 1 and the first one of SDXL

# Measured on two CPU cores with an SD 1.x model of 1066 M parameters: seconds of a network row of 512 x 512 px, and of
# decoding a picture of that size. The cost of a row grows with latent pixels, and with about the square root of the
# parameters: larger networks have more of them at lower resolutions.
SECONDS_PER_ROW, SECONDS_PER_DECODE = 8.0, 16.0
MEASURED_LATENT_PIXELS, MEASURED_PARAMETERS = 64 * 64, 1_066_000_000

STRENGTH = NoiseLevel(kind="strength", low=0.05, high=1.0, default=0.3)
NOISE_STEP = NoiseLevel(kind="step", low=0, high=350, default=20, label="Noise level")


@dataclass(frozen=True, kw_only=True)
class LatentCapabilities(Capabilities):
    """What a latent model can do.

    size: never None. Inpainting of the painted area and the tiles of super-resolution have its default.
    latent_scale: px of a result per latent pixel, along one side.
    reads_guidance: whether the network takes the guidance as an input, so that one pass is enough.
    decode_seconds: time of decoding a picture of the default size on two CPU cores.
    """

    size: SizeRange
    noise_level: NoiseLevel
    latent_scale: int = 8
    reads_guidance: bool = False
    decode_seconds: float

    def output_size(self, request: Request) -> tuple[int, int]:
        if isinstance(request, SuperResolve):
            return request.output_size
        if not isinstance(request, TextToImage):
            return request.image.size
        width, height = self.size.default if request.image is None else self.size.fit(request.image.size)
        return request.width or width, request.height or height

    def check(self, request: Request) -> None:
        super().check(request)
        if isinstance(request, SuperResolve):
            pixels = request.count * request.image.width * request.image.height * self.painting_scale(request) ** 2
            if pixels > MAX_PIXELS:
                raise InvalidRequest(
                    f"The larger pictures may have {format_megapixels(MAX_PIXELS)} together; {self.name} would paint "
                    f"{format_megapixels(pixels)}."
                )

    def painting_scale(self, request: SuperResolve) -> int:
        """Return the factor by which the model enlarges the picture; the result is then resized to the target."""
        return min((scale for scale in self.scales if scale >= request.scale), default=request.scale)

    def count_pixels(self, request: Request) -> int:
        width, height = self.output_size(request)
        return width * height * request.count

    def count_passes(self, request: Request, caption: str) -> int:
        return 1 if request.guidance <= 1 or self.reads_guidance else 2

    def count_rows(self, request: Request, passes: int) -> int:
        strength = 1.0
        if isinstance(request, Inpaint) or (isinstance(request, TextToImage) and request.image is not None):
            strength = request.strength
        elif isinstance(request, SuperResolve) and self.noise_level == STRENGTH:
            strength = request.noise_level
        calls = max(ceil(count_calls(request) * strength), 1)
        return calls * passes * self._count_tiles(request) * request.count

    def _count_tiles(self, request: Request) -> int:
        if not isinstance(request, SuperResolve):
            return 1
        scale = self.painting_scale(request)
        side = min(self.size.default)
        return count_tiles(request.image.height * scale, request.image.width * scale, side)

    def estimate_seconds(self, request: Request, rows: int) -> float:
        width, height = self.size.default
        area = 1.0  # of a network row, in pictures of the default size
        if isinstance(request, TextToImage) or (isinstance(request, Inpaint) and request.area == "whole"):
            painted = self.size.fit(self.output_size(request))
            area = painted[0] * painted[1] / (width * height)
        decoded = self._count_tiles(request) * request.count * area
        return rows * area * self.seconds_per_row + decoded * self.decode_seconds


def read_capabilities(entry: ModelEntry, *, refiners: Sequence[str] = ()) -> LatentCapabilities:
    """Return the capabilities of a latent model of the catalog.

    refiners: ids of the SDXL refiners of the catalog.
    """
    identity = entry.identity
    is_upscaler, is_lcm = identity.family == UPSCALER, identity.variant == "lcm"
    tasks = _tasks(identity.family, identity.variant)
    samplers = _samplers(identity.variant, identity.prediction_type)
    latent_scale = 4 if is_upscaler else 8
    width, height = identity.sample_size
    area = width * height / latent_scale**2 / MEASURED_LATENT_PIXELS
    network = sqrt(entry.parameters / MEASURED_PARAMETERS)
    capabilities = LatentCapabilities(
        model_id=entry.id,
        name=entry.name,
        family=identity.family,
        tasks=tasks,
        samplers=sampler_labels(samplers),
        spacings={sampler: LATENT_SPACINGS[sampler] for sampler in samplers},
        size=SizeRange(default=identity.sample_size),
        clip_skip=None if is_upscaler else (0, _max_clip_skip(entry)),
        guidance_rescale=not is_upscaler and not is_lcm,
        refiners=tuple(refiners) if identity.family == "sdxl" and TextToImage.task in tasks else (),
        inpaint_strength=Inpaint.task in tasks,
        scales=(4,) if is_upscaler else SCALES,
        noise_level=NOISE_STEP if is_upscaler else STRENGTH,
        negative_prompt=not identity.embeds_guidance,
        trigger_words=entry.trigger_words,
        latent_scale=latent_scale,
        reads_guidance=identity.embeds_guidance,
        seconds_per_row=area * network * SECONDS_PER_ROW,
        decode_seconds=area * min(network, 1.0) * SECONDS_PER_DECODE,
    )
    settings = _settings(capabilities, entry)
    size = tuple(settings.pop(name, side) for name, side in zip(("width", "height"), identity.sample_size, strict=True))
    by_task: dict[str, dict[str, Any]] = {
        TextToImage.task: settings | {"width": size[0], "height": size[1]},
        Inpaint.task: settings,
        SuperResolve.task: settings
        | {"scale": capabilities.scales[0], "noise_level": capabilities.noise_level.default},
    }
    return replace(
        capabilities,
        size=replace(capabilities.size, default=size),
        defaults={task: by_task[task] for task in tasks},
    )


def _tasks(family: str, variant: str) -> tuple[str, ...]:
    """Return the tasks of a model; a refiner has none of its own."""
    if family == UPSCALER:
        return (SuperResolve.task,)
    if family not in ("stable-diffusion", "sdxl"):
        return ()
    return (Inpaint.task,) if variant == "inpainting" else (TextToImage.task, Inpaint.task, SuperResolve.task)


def _samplers(variant: str, prediction_type: str) -> tuple[str, ...]:
    """Return the keys of the samplers; StudioScheduler takes predictions of the noise or of v only."""
    if variant == "lcm":
        return ("lcm",)
    return tuple(key for key in LATENT_SPACINGS if key != "studio" or prediction_type in ("epsilon", "v_prediction"))


def _max_clip_skip(entry: ModelEntry) -> int:
    """Return how many layers of the text encoder may be left out: all but the first."""
    try:
        layers = int(read_json(entry.path / "text_encoder" / "config.json")["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError):  # a single file, or a model that cannot be loaded
        layers = CLIP_LAYERS
    return min(max(layers - 1, 0), MAX_CLIP_SKIP)


def _settings(capabilities: LatentCapabilities, entry: ModelEntry) -> dict[str, Any]:
    """Return the entry's default settings that the model can run, the sampler before its spacing."""
    settings: dict[str, Any] = {"sampler": next(iter(capabilities.samplers))}
    for name in ("sampler", *entry.defaults):
        if name in entry.defaults:
            try:
                capabilities.check_settings(settings | {name: entry.defaults[name]})
            except (InvalidRequest, TypeError):  # a person may have set it for another variant
                continue
            settings[name] = entry.defaults[name]
    return settings
