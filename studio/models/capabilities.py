"""What a model can do, as plain data: requests are checked and resolved by it, and pages are built from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.engine.checks import InvalidRequest, check_choice, check_int, check_number, quote_value
from studio.engine.requests import (
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_SEED,
    MAX_STEPS,
    Denoise,
    Inpaint,
    Request,
    SuperResolve,
    TextToImage,
)
from studio.engine.resolved import ResolvedRequest
from studio.imaging.areas import MAX_ASPECT
from studio.imaging.tiles import count_tiles
from studio.models.samplers import SECOND_ORDER
from studio.prompts.captions import ANY, build_caption, choose_style_and_background
from studio.prompts.nouns import without_style
from studio.prompts.vocabulary import Vocabulary

FEW_STEPS = 4  # a run of no more steps is finished in one network call per stage, other runs in two


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What one model can do.

    model_id, name: the model's id, and its name for people.
    tasks: the tasks of the requests that it runs.
    samplers: key -> name for people.
    steps, guidance, count: the smallest and the largest allowed value.
    resolutions: sides in px at which text-to-image can finish; default_resolution: the one that it chooses itself.
    styles, backgrounds: name -> caption template (see `studio.prompts.captions`).
    request_only_backgrounds: backgrounds that a seed never chooses; a request must name them.
    vocabulary: the words that the model has learned; None for a model that reads free text.
    negative_prompt: whether it takes one.
    one_pass_guidance: the smallest and the largest guidance that the network applies in one pass; None: it cannot.
    style_emphasis: whether the words for the style can be emphasized, in a third pass.
    presets: name -> settings of TextToImage; live_preset: the one that paints while a person types, if any.
    sample_size, tile_size: sides in px at which text becomes a picture, and of the tiles in larger pictures.
    seconds_per_row: time of a network row on two CPU cores, until it is measured.
    """

    model_id: str
    name: str
    tasks: tuple[str, ...]
    samplers: Mapping[str, str]
    steps: tuple[int, int] = (1, MAX_STEPS)
    guidance: tuple[float, float] = (0.0, MAX_GUIDANCE)
    count: tuple[int, int] = (1, MAX_COUNT)
    resolutions: tuple[int, ...]
    default_resolution: int
    styles: Mapping[str, str] = field(default_factory=dict[str, str])
    backgrounds: Mapping[str, str] = field(default_factory=dict[str, str])
    request_only_backgrounds: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    negative_prompt: bool = True
    one_pass_guidance: tuple[float, float] | None = None
    style_emphasis: bool = False
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    live_preset: str | None = None
    sample_size: int
    tile_size: int
    seconds_per_row: float

    def caption(self, prompt: str, style: str = ANY, background: str = ANY) -> str:
        """Build the text that the model reads."""
        return build_caption(prompt, self.styles.get(style, ""), self.backgrounds.get(background, ""))

    def check(self, request: Request) -> None:
        """Raise InvalidRequest, naming the field, the value and the allowed values, if the model cannot run this."""
        if request.model_id not in ("", self.model_id):
            raise InvalidRequest(f"The model must be {self.model_id}; it was {quote_value(request.model_id)}.")
        if request.task not in self.tasks:
            raise InvalidRequest(f"The task must be one of {', '.join(self.tasks)}; it was {request.task}.")
        check_choice("sampler", request.sampler, tuple(self.samplers))
        check_int("steps", request.steps, *self.steps)
        check_number("guidance", request.guidance, *self.guidance)
        check_int("number of pictures", request.count, *self.count)
        if request.negative_prompt and not self.negative_prompt:
            raise InvalidRequest(
                f"The negative prompt must be empty for {self.name}; it was {quote_value(request.negative_prompt)}."
            )
        if isinstance(request, TextToImage | Inpaint):
            check_choice("style", request.style, (ANY, *self.styles))
            check_choice("background", request.background, (ANY, *self.backgrounds))
        if isinstance(request, TextToImage) and request.resolution not in (None, *self.resolutions):
            allowed = ", ".join(map(str, self.resolutions))
            raise InvalidRequest(f"The output size must be one of {allowed}; it was {quote_value(request.resolution)}.")

    def resolve(self, request: Request) -> ResolvedRequest:
        """Check a request and derive everything that the studio computes of it. Raises InvalidRequest."""
        self.check(request)
        seeds: list[int] = []
        for i in range(request.count):
            seeds.append((request.seed + i) % (MAX_SEED + 1))
        styles_and_backgrounds = self._styles_and_backgrounds(request, seeds)
        captions: list[str] = []
        for i, (style, background) in enumerate(styles_and_backgrounds):
            is_repeated = i > 0 and (style, background) == styles_and_backgrounds[0]
            captions.append(captions[0] if is_repeated else self.caption(request.prompt, style, background))
        caption = captions[0]
        if isinstance(request, TextToImage) and request.randomize_style:
            caption = self.caption(request.prompt, request.style, request.background)
        passes = self._passes(request, captions[0])
        rows = self._rows(request, passes)
        return ResolvedRequest(
            request=request,
            model_id=self.model_id,
            model_ids=(self.model_id,),
            settings=request.settings(),
            caption=caption,
            captions=tuple(captions),
            styles_and_backgrounds=styles_and_backgrounds,
            seeds=tuple(seeds),
            pixels=_pixels(request),
            passes=passes,
            rows=rows,
            seconds=rows * self.seconds_per_row,
        )

    def _styles_and_backgrounds(self, request: Request, seeds: Sequence[int]) -> tuple[tuple[str, str], ...]:
        """Return the style and the background of each picture."""
        if not isinstance(request, TextToImage | Inpaint):
            return ((ANY, ANY),) * len(seeds)
        requested = (request.style, request.background)
        # An empty prompt leaves everything to the model.
        is_random = isinstance(request, TextToImage) and request.randomize_style and bool(request.prompt.strip())
        if not is_random or not self.styles or not self.backgrounds:
            return (requested,) * len(seeds)
        styles_and_backgrounds: list[tuple[str, str]] = []
        for seed in seeds:
            style, background = choose_style_and_background(
                request.prompt, seed, tuple(self.styles), tuple(self.backgrounds), self.request_only_backgrounds
            )
            styles_and_backgrounds.append(
                (
                    style if request.style == ANY else request.style,
                    background if request.background == ANY else request.background,
                )
            )
        return tuple(styles_and_backgrounds)

    def _passes(self, request: Request, caption: str) -> int:
        """Count how often a step shows the network each tile: with the prompt, without it, and without its style."""
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

    def _rows(self, request: Request, passes: int) -> int:
        """Estimate the network rows of a request: a tile in one pass of one network call is one row."""
        calls = request.steps * (2 if request.sampler in SECOND_ORDER else 1)
        if isinstance(request, SuperResolve):
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
        enlarged = self.sample_size
        while enlarged < side:
            enlarged *= 2
            tiles = count_tiles(enlarged, round(enlarged * ratio), self.tile_size)
            rows += tiles * (1 if request.steps <= FEW_STEPS else 2)
        return rows * request.count


def _pixels(request: Request) -> int:
    """Count the pixels of all results, or of as many inputs if those are larger."""
    pixels = 0
    if isinstance(request, SuperResolve):
        pixels = request.image.width * request.image.height * request.scale**2
    elif isinstance(request, TextToImage) and request.resolution is not None:
        image = request.image
        pixels = round(request.resolution**2 * (max(image.size) / min(image.size) if image is not None else 1.0))
    if request.image is not None:
        pixels = max(pixels, request.image.width * request.image.height)
    return pixels * request.count
