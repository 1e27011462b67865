"""What can be asked of the engine: frozen requests, checked once, here.

Knows fields, types and ranges; knows nothing of queues, networks or pages. Whatever is wrong is refused with
one sentence that names the field, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from PIL import Image

from studio.engine.checks import (
    InvalidRequest,
    check_bool,
    check_choice,
    check_image,
    check_int,
    check_number,
    check_text,
    format_megapixels,
    quote_value,
)
from studio.imaging.files import MAX_PIXELS, MAX_SIDE
from studio.imaging.masks import mask_to_hole
from studio.imaging.modes import normalize_mask
from studio.imaging.tiles import count_tiles
from studio.prompts.captions import ANY, BACKGROUNDS, STYLES, build_caption, choose_look
from studio.prompts.nouns import without_style

# The keys of studio.diffusion.schedulers.samplers.SAMPLERS with their names for people, here so that a page can be
# built, and a request checked, before torch is imported. A test holds the two equal.
SAMPLERS = {
    "studio": "Studio",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "dpm++2m": "DPM++ 2M",
    "unipc": "UniPC",
    "euler": "Euler",
    "heun": "Heun",
}
MAX_SEED = 2**32 - 1
MAX_STEPS = 1000
MAX_ROWS = 150_000  # network rows of 64 px that a job may take: the better part of an hour on two cores
MAX_GUIDANCE = 30.0
MAX_COUNT = 9
MAX_NOISE_LEVEL = 0.3
MAX_MASK_MARGIN = 256  # px by which a mask may grow, shrink or fade out
MAX_SIGMA = 100.0  # standard deviation of noise, in levels of 255
SCALES = (2, 4)
RESOLUTIONS = (64, 128, 256, 512)  # px, sides at which pictures from words can be finished
AREAS = {"painted": "Painted area only", "whole": "Whole picture"}
DENOISE_METHODS = {"mean": "Posterior mean (one evaluation)", "run": "Full run"}


@dataclass(frozen=True)
class BaseRequest:
    """What every request holds beside its pictures, and how it becomes plain values."""

    task: ClassVar[str]
    _pictures: ClassVar[tuple[str, ...]] = ()  # names of the fields that hold pictures

    def _check(self) -> None:
        check_text("prompt", self.prompt)
        check_text("negative prompt", self.negative_prompt)
        check_int("number of pictures", self.count, 1, MAX_COUNT)
        check_int("steps", self.steps, 1, MAX_STEPS)
        check_number("guidance", self.guidance, 0.0, MAX_GUIDANCE)
        check_choice("sampler", self.sampler, tuple(SAMPLERS))
        check_int("seed", self.seed, 0, MAX_SEED)

    def _check_work(self, width: int, height: int) -> None:
        """What is painted at its full size (px) may not take for ever, since nobody may be left to stop it."""
        calls = self.steps * (1 + (self.sampler == "heun"))
        rows = count_tiles(height, width, 64) * calls * self.passes * self.count
        if rows > MAX_ROWS:
            raise InvalidRequest(
                f"This would take {rows:,} evaluations of the network, and a job may take {MAX_ROWS:,}: choose fewer "
                "steps, guidance 1, another sampler than Heun, or a smaller picture."
            )

    @property
    def caption(self) -> str:
        """The whole prompt that was asked for."""
        return build_caption(self.prompt)

    @property
    def captions(self) -> list[str]:
        """What the model reads, one a picture."""
        return [self.caption] * self.count

    @property
    def passes(self) -> int:
        """How often a step shows the network each part of a picture: guidance takes a second time."""
        return 1 if self.guidance == 1 else 2

    @property
    def seeds(self) -> list[int]:
        """One seed a picture: picture i of many is the picture that its seed gives alone."""
        return [(self.seed + i) % (MAX_SEED + 1) for i in range(self.count)]

    @property
    def pixels(self) -> int:
        """Of all results together, or of as many of what they begin with where that is larger; where words alone decide
        and no size is asked for, the model does, and this is 0."""
        sizes = [picture.width * picture.height for picture in self.pictures().values()]
        return self.count * max(self._painted_pixels, *sizes, 0)

    @property
    def _painted_pixels(self) -> int:
        """Of one picture as it is painted, where that is known and not what it begins with."""
        return 0

    def settings(self) -> dict[str, Any]:
        """The task and all fields but the pictures as plain values, for metadata and JSON."""
        names = [field.name for field in fields(self) if field.name not in self._pictures]
        return {"task": self.task, **{name: getattr(self, name) for name in names}}

    def pictures(self) -> dict[str, Image.Image]:
        """The pictures that belong to the request, by field."""
        named = {name: getattr(self, name) for name in self._pictures}
        return {name: picture for name, picture in named.items() if picture is not None}


@dataclass(frozen=True)
class TextToImage(BaseRequest):
    """Pictures from words, or variations of a picture.

    prompt, negative_prompt: up to 10,000 characters; an empty prompt paints without guidance by words.
    style, ground: one of STYLES, GROUNDS, or "any"; they are added to the prompt (see `caption`).
    count: pictures, 1 to 9; picture i has seed (seed + i) mod 2**32.
    steps: 1 to 1000.  guidance: 0 to 30, 1 is none.  sampler: a key of SAMPLERS.  seed: 0 to 2**32 - 1.
    image: a picture to vary, up to 16 megapixels; results are of its size.  strength: above 0, at most 1: how far the
        result may leave it (with 1, nothing of it is left). Without an image, it says nothing.
    resolution: one of FINISHES, the shorter side at which the picture is finished; None is the model's own choice.
    one_pass: guidance as the network's own input, half the work, where the model can: from 1 to 5, without a negative
        prompt; else by a second row, as always.
    style_emphasis: what the words for the style change counts more, by a third row, where there is a second one.
    varied: a style or ground that is left open is chosen by each picture's seed.

    Raises InvalidRequest.
    """

    task: ClassVar[str] = "text-to-image"
    _pictures: ClassVar[tuple[str, ...]] = ("image",)

    prompt: str
    negative_prompt: str = ""
    style: str = ANY
    background: str = ANY
    count: int = 1
    steps: int = 10
    guidance: float = 3.0
    sampler: str = "studio"
    seed: int = 0
    image: Image.Image | None = field(default=None, hash=False, kw_only=True)
    strength: float = field(default=0.6, kw_only=True)
    resolution: int | None = field(default=None, kw_only=True)
    one_pass: bool = field(default=False, kw_only=True)
    style_emphasis: bool = field(default=False, kw_only=True)
    randomize_style: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._check()
        check_bool("Guidance in one pass", self.one_pass)
        check_bool("Style emphasis", self.style_emphasis)
        check_bool("Whether the seed chooses", self.randomize_style)
        check_choice("style", self.style, (ANY, *STYLES))
        check_choice("ground colour", self.background, (ANY, *BACKGROUNDS))
        check_number("strength", self.strength, 0.0, 1.0)
        if self.strength == 0:
            raise InvalidRequest("The strength must be above 0: at 0 nothing changes.")
        if self.resolution is not None and (type(self.resolution) is not int or self.resolution not in RESOLUTIONS):
            allowed = ", ".join(map(str, RESOLUTIONS))
            raise InvalidRequest(
                f"The size to finish at must be one of {allowed}; it was {quote_value(self.resolution)}."
            )
        if self.image is not None:
            object.__setattr__(self, "image", check_image("picture", self.image))

    @property
    def caption(self) -> str:
        """The whole prompt that was asked for, style and ground included."""
        return build_caption(self.prompt, self.style, self.background)

    @property
    def captions(self) -> list[str]:
        return [build_caption(self.prompt, *self.look(seed)) for seed in self.seeds]

    def look(self, seed: int) -> tuple[str, str]:
        """Style and ground of the picture with this seed. An empty prompt leaves all to the model."""
        if not self.randomize_style or not self.prompt.strip():
            return self.style, self.background
        style, background = choose_look(self.prompt, seed)
        return style if self.style == ANY else self.style, background if self.background == ANY else self.background

    @property
    def passes(self) -> int:
        """As everywhere, and a third time where the style is emphasized; once where the network guides by itself."""
        if self.one_pass and not self.negative_prompt:
            return 1
        emphasized = self.style_emphasis and self.guidance > 1 and without_style(self.captions[0]) != self.captions[0]
        return super().passes + emphasized

    @property
    def _painted_pixels(self) -> int:
        if self.resolution is None:
            return 0
        longer = 1.0 if self.image is None else max(self.image.size) / min(self.image.size)
        return round(self.resolution**2 * longer)


@dataclass(frozen=True)
class Inpaint(BaseRequest):
    """A picture with a hole, painted again where the mask is white.

    image: up to 16 megapixels, kept as RGB, or RGBA where it can be transparent.  mask: of the same size, kept as L;
    from 128 on is repainted; of a mask that is transparent somewhere, what is opaque.
    grow: -256 to 256, px by which the hole is made wider first (after `invert`), or narrower.
    feather: 0 to 256, px outside the hole over which it fades into the picture; at 0 nothing outside is changed.
    invert: paint where the mask is black.  area: "painted", a square around the hole, or "whole", the picture.
    The rest as in TextToImage. Pictures are copied; two requests are equal if their pictures look the same.

    Raises InvalidRequest: also where nothing would be painted.
    """

    task: ClassVar[str] = "inpaint"
    _pictures: ClassVar[tuple[str, ...]] = ("image", "mask")

    prompt: str
    image: Image.Image = field(hash=False)
    mask: Image.Image = field(hash=False)
    negative_prompt: str = ""
    count: int = 1
    steps: int = 6
    guidance: float = 1.5
    sampler: str = "studio"
    seed: int = 0
    grow: int = field(default=0, kw_only=True)
    feather: int = field(default=0, kw_only=True)
    invert: bool = field(default=False, kw_only=True)
    area: str = field(default="painted", kw_only=True)

    def __post_init__(self) -> None:
        self._check()
        check_int("growth of the mask", self.grow, -MAX_MASK_MARGIN, MAX_MASK_MARGIN)
        check_int("feather", self.feather, 0, MAX_MASK_MARGIN)
        check_choice("area", self.area, tuple(AREAS))
        check_bool("Whether to invert the mask", self.invert)
        object.__setattr__(self, "image", check_image("picture", self.image))
        object.__setattr__(self, "mask", check_image("mask", self.mask, normalize_mask))
        if self.mask.size != self.image.size:
            raise InvalidRequest(
                f"The mask is {_size(self.mask)} px and the picture {_size(self.image)} px; both must be of one size."
            )
        if not mask_to_hole(self.mask, self.invert).any():
            what = "white and inverted" if self.invert else "black"
            raise InvalidRequest(
                f"The mask is all {what}, so there is nothing to paint: mark something on the picture."
            )
        if self.grow < 0 and not mask_to_hole(self.mask, self.invert, self.grow).any():
            raise InvalidRequest(f"Nothing is left of the mask when it shrinks by {-self.grow} px.")


@dataclass(frozen=True)
class SuperResolve(BaseRequest):
    """A small picture, painted larger.

    image: kept as RGB, or RGBA where it can be transparent.  scale: 2 or 4.
    target: (width, height) in px in place of a scale: the scale becomes the smallest that reaches it, and what is
        painted is resized to it exactly.  The results may have 16 megapixels together.
    noise_level: 0 to 0.3, put on the small picture; more invents more.  The rest as in TextToImage.

    Raises InvalidRequest.
    """

    task: ClassVar[str] = "super-resolution"
    _pictures: ClassVar[tuple[str, ...]] = ("image",)

    image: Image.Image = field(hash=False)
    scale: int = 2
    prompt: str = ""
    noise_level: float = 0.0
    negative_prompt: str = ""
    count: int = 1
    steps: int = 2
    guidance: float = 1.0
    sampler: str = "studio"
    seed: int = 0
    target: tuple[int, int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._check()
        if not isinstance(self.scale, int) or self.scale not in SCALES:
            raise InvalidRequest(f"The scale must be 2 or 4; it was {quote_value(self.scale)}.")
        check_number("creativity", self.noise_level, 0.0, MAX_NOISE_LEVEL)
        object.__setattr__(self, "image", check_image("picture", self.image))
        if self.target is not None:
            self._aim()
        width, height = self.output_size
        if self.pixels > MAX_PIXELS:
            times = f"{self.scale} times as large"
            to = times if self.target is None else f"painted {times}, then resized to {width} x {height} px"
            raise InvalidRequest(
                f"The larger pictures may have {format_megapixels(MAX_PIXELS)} together; these would have "
                f"{format_megapixels(self.pixels)}: {self.count} x {_size(self.image)} px, {to}."
            )
        self._check_work(self.image.width * self.scale, self.image.height * self.scale)

    def _aim(self) -> None:
        """Checks the target and takes the scale that it needs."""
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
        times = max(length / now for length, now in zip(target, self.image.size, strict=True))
        object.__setattr__(self, "scale", next(scale for scale in SCALES if scale >= times))

    @property
    def output_size(self) -> tuple[int, int]:
        """(width, height) of the results."""
        return self.target or (self.image.width * self.scale, self.image.height * self.scale)

    @property
    def _painted_pixels(self) -> int:
        return self.image.width * self.image.height * self.scale**2


@dataclass(frozen=True)
class Denoise(BaseRequest):
    """A noisy picture without its noise.

    image: up to 16 megapixels, kept as RGB, or RGBA where it can be transparent: its alpha stays.
    sigma: above 0, at most 100: the standard deviation of the noise in levels of 255; None: it is estimated.
    way: "mean", the posterior mean, one evaluation of the network; or "run", the reverse process from there in `steps`
        steps, which invents what the mean leaves blurred.
    The rest as in TextToImage; only our own sampler can begin at any level of noise, so there is no choice of one.

    Raises InvalidRequest.
    """

    task: ClassVar[str] = "denoise"
    _pictures: ClassVar[tuple[str, ...]] = ("image",)

    image: Image.Image = field(hash=False)
    sigma: float | None = None
    method: str = "mean"
    prompt: str = ""
    negative_prompt: str = ""
    count: int = 1
    steps: int = 8
    guidance: float = 1.0
    seed: int = 0
    sampler: str = field(default="studio", init=False)

    def __post_init__(self) -> None:
        self._check()
        check_choice("method", self.method, tuple(DENOISE_METHODS))
        if self.sigma is not None:
            check_number("noise", self.sigma, 0.0, MAX_SIGMA)
            if self.sigma == 0:
                raise InvalidRequest("The noise must be above 0: at 0 there is none to take away.")
        object.__setattr__(self, "image", check_image("picture", self.image))
        if self.method == "run":
            self._check_work(*self.image.size)


Request = TextToImage | Inpaint | SuperResolve | Denoise
# Names of fields in settings that earlier versions stored.
EARLIER_NAMES = {"ground": "background", "varied": "randomize_style", "finish": "resolution", "way": "method"}
_REQUESTS = {kind.task: kind for kind in (TextToImage, Inpaint, SuperResolve, Denoise)}


def request_from(settings: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> Request:
    """The request that these `settings()` and `pictures()` are of. Names that it does not know are left out.

    Raises InvalidRequest: also for a task that there is not, or a field that is missing.
    """
    task = settings.get("task", TextToImage.task)
    check_choice("task", task, tuple(_REQUESTS))
    kind = _REQUESTS[task]
    settings = with_current_names(settings)
    given = {**{k: v for k, v in settings.items() if k not in kind._pictures}, **pictures}
    known = {field.name: field for field in fields(kind) if field.init}
    for name, of in known.items():
        if of.default is MISSING and name not in given:
            raise InvalidRequest(f"The {name} is missing.")
    return kind(**{name: value for name, value in given.items() if name in known})


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the fields of settings that an earlier version stored."""
    return {EARLIER_NAMES.get(name, name): value for name, value in settings.items()}


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height}"
