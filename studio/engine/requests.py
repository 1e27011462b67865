"""The requests that the engine runs: frozen dataclasses that check their own fields.

A request checks what holds for every model: types, ranges and pictures. What the chosen model can do is checked when
the request is resolved (see `studio.models.capabilities`). All checks raise InvalidRequest.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self

from PIL import Image

from studio.engine.checks import (
    InvalidRequest,
    check_bool,
    check_choice,
    check_image,
    check_int,
    check_number,
    check_positive,
    check_text,
    format_megapixels,
    quote_value,
)
from studio.imaging.files import MAX_PIXELS, MAX_SIDE
from studio.imaging.masks import mask_to_hole
from studio.imaging.modes import normalize_mask
from studio.prompts.captions import ANY

MAX_SEED = 2**32 - 1
MAX_STEPS = 1000
MAX_GUIDANCE = 30.0
MAX_COUNT = 9
MAX_CLIP_SKIP = 12
MAX_NOISE_LEVEL = 1000.0  # of any model
MAX_MASK_MARGIN = 256  # px by which a mask may grow, shrink or fade out
MAX_SIGMA = 100.0  # standard deviation of noise, in levels of 255
SCALES = (2, 4)
AREAS = {"painted": "Painted area only", "whole": "Whole picture"}
DENOISE_METHODS = {"mean": "Smooth", "run": "Detailed"}  # the posterior mean, the reverse process


@dataclass(frozen=True, kw_only=True)
class BaseRequest:
    """The fields that all tasks share.

    prompt, negative_prompt: up to 10,000 characters.
    count: pictures, 1 to 9; picture i has the seed (seed + i) mod 2**32.
    steps: 1 to 1000.
    guidance: 0 to 30; 1 means no guidance.
    sampler: a sampler of the model.
    spacing: how the sampler spaces its steps, one of the model's; "" means as the model's scheduler does.
    clip_skip: 0 to 12, last layers of the text encoder that are left out, where the model can.
    guidance_rescale: 0 to 1, how far the guided prediction gets the spread of the conditional one (Lin et al. 2023,
        "Common Diffusion Noise Schedules and Sample Steps are Flawed", eq. 15-16), where the model can.
    seed: 0 to 2**32 - 1.
    model_id: the model that runs the request; "" means the default model.
    """

    task: ClassVar[str]
    picture_fields: ClassVar[tuple[str, ...]] = ()  # names of the fields that hold pictures

    prompt: str = ""
    negative_prompt: str = ""
    count: int = 1
    steps: int = 10
    guidance: float = 3.0
    sampler: str = "studio"
    spacing: str = ""
    clip_skip: int = 0
    guidance_rescale: float = 0.0
    seed: int = 0
    model_id: str = ""

    def _check(self) -> None:
        check_text("prompt", self.prompt)
        check_text("negative prompt", self.negative_prompt)
        check_int("number of pictures", self.count, 1, MAX_COUNT)
        check_int("steps", self.steps, 1, MAX_STEPS)
        check_number("guidance", self.guidance, 0.0, MAX_GUIDANCE)
        check_text("sampler", self.sampler)
        check_text("spacing", self.spacing)
        check_int("clip skip", self.clip_skip, 0, MAX_CLIP_SKIP)
        check_number("guidance rescale", self.guidance_rescale, 0.0, 1.0)
        check_int("seed", self.seed, 0, MAX_SEED)
        check_text("model", self.model_id)

    def settings(self) -> dict[str, Any]:
        """Return the task and all fields but the pictures as plain values, for metadata and JSON."""
        values: dict[str, Any] = {"task": self.task}
        for item in fields(self):
            if item.name not in self.picture_fields:
                values[item.name] = getattr(self, item.name)
        return values

    def with_model(self, model_id: str) -> Self:
        """Return the same request for a model; its pictures are shared."""
        request = copy(self)
        object.__setattr__(request, "model_id", model_id)
        return request

    def pictures(self) -> dict[str, Image.Image]:
        """Return the pictures of the request by the names of their fields."""
        pictures: dict[str, Image.Image] = {}
        for name in self.picture_fields:
            if (picture := getattr(self, name)) is not None:
                pictures[name] = picture
        return pictures


@dataclass(frozen=True)
class TextToImage(BaseRequest):
    """Pictures from text, or variations of a picture.

    style, background: a style and a background of the model, or "any"; both are added to the prompt.
    randomize_style: the seed of each picture chooses the style and the background that are left open.
    resolution: the shorter side of the result in px, one of the model's; None lets the model choose.
    width, height: size of the result in px, for a model that takes any size; None means the model's own, or the
        picture's.
    refiner: a second model that takes the last steps, where the model can hand over to one; "" means none.
    refiner_start: above 0, below 1: share of the noise schedule after which the refiner goes on.
    image: a picture to vary, up to 16 megapixels; results have its size.
    strength: above 0, at most 1: how much of the picture may change. Ignored without an image.
    one_pass: guide by the network's own input, in half the time, where the model can.
    style_emphasis: follow the words for the style more closely, in a third pass, where guidance takes a second one.
    """

    task: ClassVar[str] = "text-to-image"
    picture_fields: ClassVar[tuple[str, ...]] = ("image",)

    prompt: str = field()
    style: str = field(default=ANY, kw_only=True)
    background: str = field(default=ANY, kw_only=True)
    randomize_style: bool = field(default=False, kw_only=True)
    resolution: int | None = field(default=None, kw_only=True)
    width: int | None = field(default=None, kw_only=True)
    height: int | None = field(default=None, kw_only=True)
    refiner: str = field(default="", kw_only=True)
    refiner_start: float = field(default=0.8, kw_only=True)
    image: Image.Image | None = field(default=None, hash=False, kw_only=True)
    strength: float = field(default=0.6, kw_only=True)
    one_pass: bool = field(default=False, kw_only=True)
    style_emphasis: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._check()
        check_text("style", self.style)
        check_text("background", self.background)
        check_bool("Random style and background (randomize_style)", self.randomize_style)
        check_bool("One-pass guidance (one_pass)", self.one_pass)
        check_bool("Style emphasis", self.style_emphasis)
        check_positive("strength", self.strength, 1.0)
        if self.resolution is not None:
            check_int("output size", self.resolution, 1, MAX_SIDE)
        for name in ("width", "height"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1, MAX_SIDE)
        check_text("refiner", self.refiner)
        check_number("start of the refiner (refiner_start)", self.refiner_start, 0.01, 0.99)
        if self.image is not None:
            object.__setattr__(self, "image", check_image("picture", self.image))


@dataclass(frozen=True)
class Inpaint(BaseRequest):
    """A picture that is repainted where the mask is white.

    image: up to 16 megapixels, stored as RGB, or RGBA if it has transparency.
    mask: of the same size, stored as L; values from 128 on are repainted. See `studio.imaging.modes.read_mask`.
    style, background: as for TextToImage.
    grow: -256 to 256, px by which the repainted area grows, or shrinks; applied after `invert`.
    feather: 0 to 256, px outside the mask over which the new pixels fade out; at 0 no pixel outside changes.
    invert: repaint where the mask is black.
    area: "painted", a square around the mask, or "whole", the whole picture.
    strength: above 0, at most 1: how much of the repainted area may change, where the model can begin from it.

    Pictures are copied. Requests are equal if their fields and the pixels of their pictures are. Raises InvalidRequest,
    also if the mask is empty.
    """

    task: ClassVar[str] = "inpaint"
    picture_fields: ClassVar[tuple[str, ...]] = ("image", "mask")

    prompt: str = field()
    image: Image.Image = field(hash=False)
    mask: Image.Image = field(hash=False)
    steps: int = field(default=6, kw_only=True)
    guidance: float = field(default=1.5, kw_only=True)
    style: str = field(default=ANY, kw_only=True)
    background: str = field(default=ANY, kw_only=True)
    grow: int = field(default=0, kw_only=True)
    feather: int = field(default=0, kw_only=True)
    invert: bool = field(default=False, kw_only=True)
    area: str = field(default="painted", kw_only=True)
    strength: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        self._check()
        check_text("style", self.style)
        check_text("background", self.background)
        check_int("mask growth (grow)", self.grow, -MAX_MASK_MARGIN, MAX_MASK_MARGIN)
        check_int("feather", self.feather, 0, MAX_MASK_MARGIN)
        check_choice("area", self.area, tuple(AREAS))
        check_bool("Invert mask", self.invert)
        check_positive("strength", self.strength, 1.0)
        object.__setattr__(self, "image", check_image("picture", self.image))
        object.__setattr__(self, "mask", check_image("mask", self.mask, normalize_mask))
        if self.mask.size != self.image.size:
            raise InvalidRequest(
                f"The mask is {_size(self.mask)} px and the picture {_size(self.image)} px; both must be of one size."
            )
        if not mask_to_hole(self.mask, self.invert).any():
            if self.invert:
                raise InvalidRequest("The mask is all white and inverted, so there is nothing to paint.")
            raise InvalidRequest("Paint over the part you want to change first. The mask is all black.")
        if self.grow < 0 and not mask_to_hole(self.mask, self.invert, self.grow).any():
            raise InvalidRequest(f"Nothing is left of the mask when it shrinks by {-self.grow} px.")


@dataclass(frozen=True)
class SuperResolve(BaseRequest):
    """A small picture, enlarged.

    image: stored as RGB, or RGBA if it has transparency.
    scale: 2 or 4.
    target: (width, height) in px instead of a scale. The picture is enlarged by the smallest scale that reaches the
        target, then resized to it.
    noise_level: 0 to 1000, in the model's range; higher invents more detail (see `studio.models.capabilities`).

    The results may have 16 megapixels together. Raises InvalidRequest.
    """

    task: ClassVar[str] = "super-resolution"
    picture_fields: ClassVar[tuple[str, ...]] = ("image",)

    image: Image.Image = field(hash=False)
    scale: int = 2
    steps: int = field(default=2, kw_only=True)
    guidance: float = field(default=1.0, kw_only=True)
    noise_level: float = field(default=0.0, kw_only=True)
    target: tuple[int, int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._check()
        if type(self.scale) is not int or self.scale not in SCALES:
            raise InvalidRequest(f"The scale must be 2 or 4; it was {quote_value(self.scale)}.")
        check_number("creativity", self.noise_level, 0.0, MAX_NOISE_LEVEL)
        object.__setattr__(self, "image", check_image("picture", self.image))
        if self.target is not None:
            self._set_scale_by_target()
        pixels = self.count * self.image.width * self.image.height * self.scale**2
        if pixels > MAX_PIXELS:
            width, height = self.output_size
            times = f"{self.scale} times as large"
            result = times if self.target is None else f"painted {times}, then resized to {width} x {height} px"
            raise InvalidRequest(
                f"The larger pictures may have {format_megapixels(MAX_PIXELS)} together; these would have "
                f"{format_megapixels(pixels)}: {self.count} x {_size(self.image)} px, {result}."
            )

    def _set_scale_by_target(self) -> None:
        """Check the target and set the smallest scale that reaches it."""
        target = self.target
        if not isinstance(target, tuple | list) or len(target) != 2:
            raise InvalidRequest(f"The target size must be a width and a height in px; it was {quote_value(target)}.")
        for name, length, now in zip(("width", "height"), target, self.image.size, strict=True):
            check_int(f"target {name}", length, 1, MAX_SIDE)
            if length > SCALES[-1] * now:
                raise InvalidRequest(
                    f"The target {name} may be at most {SCALES[-1]} times the picture's, "
                    f"{SCALES[-1] * now} px; it was {length}."
                )
        object.__setattr__(self, "target", tuple(target))
        ratio = max(target[0] / self.image.width, target[1] / self.image.height)
        object.__setattr__(self, "scale", next(scale for scale in SCALES if scale >= ratio))

    @property
    def output_size(self) -> tuple[int, int]:
        """(width, height) of the results in px."""
        return self.target or (self.image.width * self.scale, self.image.height * self.scale)


@dataclass(frozen=True)
class Denoise(BaseRequest):
    """A noisy picture whose noise is removed.

    image: up to 16 megapixels, stored as RGB, or RGBA if it has transparency; the alpha channel is kept.
    sigma: above 0, at most 100: standard deviation of the noise in levels of 255; None estimates it.
    method: "mean", the posterior mean, one evaluation of the network; or "run", the reverse process in `steps` steps,
        which invents the detail that the mean blurs.

    The sampler is fixed: only the studio's own sampler can begin at any noise level. Raises InvalidRequest.
    """

    task: ClassVar[str] = "denoise"
    picture_fields: ClassVar[tuple[str, ...]] = ("image",)

    image: Image.Image = field(hash=False)
    sigma: float | None = None
    method: str = "mean"
    steps: int = field(default=8, kw_only=True)
    guidance: float = field(default=1.0, kw_only=True)
    sampler: str = field(default="studio", init=False)

    def __post_init__(self) -> None:
        self._check()
        check_choice("method", self.method, tuple(DENOISE_METHODS))
        if self.sigma is not None:
            check_positive("noise", self.sigma, MAX_SIGMA)
        object.__setattr__(self, "image", check_image("picture", self.image))


Request = TextToImage | Inpaint | SuperResolve | Denoise
# Names of fields in settings that earlier versions stored.
EARLIER_NAMES = {"ground": "background", "varied": "randomize_style", "finish": "resolution", "way": "method"}
_REQUESTS: dict[str, type[Request]] = {kind.task: kind for kind in (TextToImage, Inpaint, SuperResolve, Denoise)}


def request_from(settings: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> Request:
    """Build the request that has these `settings()` and `pictures()`. Ignore names that it does not know.

    Raises InvalidRequest, also for an unknown task or a missing field.
    """
    task = settings.get("task", TextToImage.task)
    check_choice("task", task, tuple(_REQUESTS))
    kind = _REQUESTS[task]
    values = {name: value for name, value in with_current_names(settings).items() if name not in kind.picture_fields}
    values |= pictures
    arguments: dict[str, Any] = {}
    for item in fields(kind):
        if item.init and item.name in values:
            arguments[item.name] = values[item.name]
        elif item.init and item.default is MISSING:
            raise InvalidRequest(f"The {item.name} is missing.")
    return kind(**arguments)


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the fields of settings that an earlier version stored."""
    return {EARLIER_NAMES.get(name, name): value for name, value in settings.items()}


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height}"
