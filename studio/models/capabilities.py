"""What a model can do, as plain data: requests are checked and resolved by it, and pages are built from it.

Each model family adds a subclass that counts the network rows of its requests (see `studio.models.families`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from studio.engine.checks import InvalidRequest, check_choice, check_int, check_number, quote_value
from studio.engine.requests import (
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_SEED,
    MAX_STEPS,
    Inpaint,
    Request,
    SuperResolve,
    TextToImage,
)
from studio.engine.resolved import ResolvedRequest
from studio.models.samplers import SECOND_ORDER
from studio.prompts.captions import ANY, build_caption, choose_style_and_background
from studio.prompts.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class SizeRange:
    """The sizes at which a model paints: a width and a height in px, each a multiple of a number within a range."""

    default: tuple[int, int]
    multiple: int = 8
    minimum: int = 64
    maximum: int = 2048

    def check(self, name: str, value: int) -> None:
        """Raise InvalidRequest if the side called `name` may not have this length."""
        if not self.minimum <= value <= self.maximum or value % self.multiple:
            raise InvalidRequest(
                f"The {name} must be a multiple of {self.multiple} from {self.minimum} to {self.maximum}; "
                f"it was {value}."
            )

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the allowed size nearest to a (width, height) with about its aspect ratio."""
        scale = min(max(1.0, self.minimum / min(size)), self.maximum / max(size))
        width, height = (round(side * scale / self.multiple) * self.multiple for side in size)
        return max(width, self.minimum), max(height, self.minimum)


@dataclass(frozen=True, kw_only=True)
class NoiseLevel:
    """What `noise_level` of SuperResolve means for a model.

    label: its name for people.  meaning: a phrase for people, as "higher invents more detail".
    kind: "noise", standard deviation of noise on the small picture; "step", train step of that noise;
        "strength", share of the noise schedule that the enlarged picture runs through.
    """

    kind: str
    low: float
    high: float
    default: float
    label: str = "Creativity"
    meaning: str = "higher invents more detail"


@dataclass(frozen=True, kw_only=True)
class Capabilities(ABC):
    """What one model can do.

    model_id, name: the model's id, and its name for people.
    family: its family, see `studio.models.identify`.
    tasks: the tasks of the requests that it runs.
    samplers: key -> name for people.
    spacings: sampler -> its spacings; "" is the model's own. Samplers that are not listed have only that.
    steps, guidance, count: the smallest and the largest allowed value.
    resolutions: sides in px at which text-to-image can finish, of a model that enlarges what it painted; else empty.
    size: the widths and heights at which text-to-image can paint; None for a model with `resolutions`.
    clip_skip: how few and how many last layers of the text encoder may be left out; None: all layers count.
    guidance_rescale: whether the guided prediction can be rescaled.
    refiners: ids of the models that can take the last steps.
    image_to_image: whether text-to-image can begin with a picture.
    inpaint_strength: whether inpainting can begin with what is in the hole.
    scales: factors of super-resolution.  noise_level: what its noise level means; None: it has none.
    styles, backgrounds: name -> caption template (see `studio.prompts.captions`).
    request_only_backgrounds: backgrounds that a seed never chooses; a request must name them.
    vocabulary: the words that the model has learned; None for a model that reads free text.
    negative_prompt: whether it takes one.
    one_pass_guidance: the smallest and the largest guidance that the network applies in one pass; None: it cannot.
    style_emphasis: whether the words for the style can be emphasized, in a third pass.
    presets: name -> settings of TextToImage; live_preset: the one that paints while a person types, if any.
    defaults: task -> the model's own settings, by fields of the request.
    trigger_words: words that bring out what the model was trained on, for a prompt.
    seconds_per_row: time of a network row of a picture of the default size on two CPU cores, until it is measured.
    """

    model_id: str
    name: str
    family: str
    tasks: tuple[str, ...]
    samplers: Mapping[str, str]
    spacings: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    steps: tuple[int, int] = (1, MAX_STEPS)
    guidance: tuple[float, float] = (0.0, MAX_GUIDANCE)
    count: tuple[int, int] = (1, MAX_COUNT)
    resolutions: tuple[int, ...] = ()
    size: SizeRange | None
    clip_skip: tuple[int, int] | None = None
    guidance_rescale: bool = False
    refiners: tuple[str, ...] = ()
    image_to_image: bool = True
    inpaint_strength: bool = False
    scales: tuple[int, ...] = ()
    noise_level: NoiseLevel | None
    styles: Mapping[str, str] = field(default_factory=dict[str, str])
    backgrounds: Mapping[str, str] = field(default_factory=dict[str, str])
    request_only_backgrounds: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    negative_prompt: bool = True
    one_pass_guidance: tuple[float, float] | None = None
    style_emphasis: bool = False
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    live_preset: str | None = None
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    trigger_words: str = ""
    seconds_per_row: float

    def caption(self, prompt: str, style: str = ANY, background: str = ANY) -> str:
        """Build the text that the model reads."""
        return build_caption(prompt, self.styles.get(style, ""), self.backgrounds.get(background, ""))

    def spacings_of(self, sampler: str) -> tuple[str, ...]:
        """Return the spacings that a sampler has with this model."""
        return self.spacings.get(sampler, ("",))

    def check(self, request: Request) -> None:
        """Raise InvalidRequest, naming the field, the value and the allowed values, if the model cannot run this."""
        if request.model_id not in ("", self.model_id):
            raise InvalidRequest(f"The model must be {self.model_id}; it was {quote_value(request.model_id)}.")
        if request.task not in self.tasks:
            allowed = f"one of {', '.join(self.tasks)}" if len(self.tasks) > 1 else " ".join(self.tasks) or "none"
            raise InvalidRequest(f"The task must be {allowed} for {self.name}; it was {request.task}.")
        check_choice("sampler", request.sampler, tuple(self.samplers))
        self._check_only("spacing", request.spacing, self.spacings_of(request.sampler))
        check_int("steps", request.steps, *self.steps)
        check_number("guidance", request.guidance, *self.guidance)
        check_int("number of pictures", request.count, *self.count)
        self._check_only("negative prompt", request.negative_prompt, None if self.negative_prompt else ("",))
        if self.clip_skip:
            check_int("clip skip", request.clip_skip, *self.clip_skip)
        self._check_only("clip skip", request.clip_skip, None if self.clip_skip else (0,))
        self._check_only("guidance rescale", request.guidance_rescale, None if self.guidance_rescale else (0,))
        if isinstance(request, TextToImage | Inpaint):
            check_choice("style", request.style, (ANY, *self.styles))
            check_choice("background", request.background, (ANY, *self.backgrounds))
        if isinstance(request, TextToImage):
            self._check_text_to_image(request)
        elif isinstance(request, Inpaint):
            self._check_only("strength", request.strength, None if self.inpaint_strength else (1,))
        elif isinstance(request, SuperResolve):
            self._check_super_resolve(request)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Check fields of TextToImage together with the model's own ones, whatever its tasks. Raises InvalidRequest."""
        values: dict[str, Any] = {"prompt": "", **self.defaults.get(TextToImage.task, {}), **settings}
        replace(self, tasks=(TextToImage.task,)).check(TextToImage(**values))

    def _check_text_to_image(self, request: TextToImage) -> None:
        self._check_only("output size", request.resolution, (None, *self.resolutions))
        for name, value in (("width", request.width), ("height", request.height)):
            if self.size is not None and value is not None:
                self.size.check(name, value)
            self._check_only(name, value, None if self.size else (None,))
        self._check_only("refiner", request.refiner, ("", *self.refiners))
        if request.image is not None and not self.image_to_image:
            raise InvalidRequest(f"{self.name} cannot begin with a picture; leave it out.")

    def _check_super_resolve(self, request: SuperResolve) -> None:
        if request.target is None:  # else the model enlarges by what it can, and the result is resized
            self._check_only("scale", request.scale, self.scales)
        if self.noise_level is not None:
            low, high = self.noise_level.low, self.noise_level.high
            check_number(self.noise_level.label.lower(), request.noise_level, low, high)

    def _check_only(self, name: str, value: object, allowed: Sequence[object] | None) -> None:
        """Raise InvalidRequest unless the value is one of those allowed; None allows any."""
        if allowed is None or value in allowed:
            return
        texts = [str(choice) for choice in allowed if choice not in ("", None)]
        if len(texts) > 1:
            listed = f"one of {', '.join(texts)}"
        else:
            is_optional = len(texts) < len(allowed)
            listed = f"{' or '.join((*texts, 'empty') if is_optional else texts)} for {self.name}"
        raise InvalidRequest(f"The {name} must be {listed}; it was {quote_value(value)}.")

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
        passes = self.count_passes(request, captions[0])
        rows = self.count_rows(request, passes)
        width, height = self.output_size(request)
        refiner = request.refiner if isinstance(request, TextToImage) else ""
        return ResolvedRequest(
            request=request,
            model_id=self.model_id,
            model_ids=(self.model_id, refiner) if refiner else (self.model_id,),
            model_name=self.name,
            settings=request.settings(),
            caption=caption,
            captions=tuple(captions),
            styles_and_backgrounds=styles_and_backgrounds,
            seeds=tuple(seeds),
            width=width,
            height=height,
            pixels=self.count_pixels(request),
            passes=passes,
            rows=rows,
            seconds=self.estimate_seconds(request, rows),
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

    # ---- what each family answers ----

    @abstractmethod
    def output_size(self, request: Request) -> tuple[int, int]:
        """Return (width, height) of the results in px."""

    @abstractmethod
    def count_pixels(self, request: Request) -> int:
        """Count the pixels of all results, or of as many inputs if those are larger; 0: the model's usual size."""

    @abstractmethod
    def count_passes(self, request: Request, caption: str) -> int:
        """Count how often a step shows the network each tile: with the prompt, without it, and without its style."""

    @abstractmethod
    def count_rows(self, request: Request, passes: int) -> int:
        """Estimate the network rows of a request: a tile in one pass of one network call is one row."""

    def estimate_seconds(self, request: Request, rows: int) -> float:
        """Estimate the time of a request alone on two CPU cores, before any was measured."""
        return rows * self.seconds_per_row


def count_calls(request: Request) -> int:
    """Count the network calls of a run of all steps."""
    return request.steps * (2 if request.sampler in SECOND_ORDER else 1)
