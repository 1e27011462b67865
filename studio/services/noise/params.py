"""Parameters of the noise service, checked before anything is computed.

`read_params` builds them from what a browser or a program sends. Every mistake is a ValueError whose sentence names
the field, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import Any, TypeVar

from studio.engine.checks import check_bool, check_choice, check_int, check_number, check_text, quote_value
from studio.engine.requests import MAX_SEED, TextToImage
from studio.imaging.animation import ANIMATION_TYPES
from studio.prompts.captions import ANY
from studio.services.build_request import as_int, seed_or_random

MAX_GUIDANCE_2D = 20.0
MAX_TRAINING_SECONDS = 3.0  # for one call
MIN_COMPARED, MAX_COMPARED = 2, 4
MAX_FRAMES = 130
MAX_ANIMATION_SECONDS = 60.0
MAX_LABEL = 60  # characters
PICTURE_SIZES = (128, 256, 512, 768, 1024)  # px, of the picture beside its latents
SPACES = ("pixels", "latents")
ARRAYS = ("x_t", "x0", "x_next")  # of a step, that a VAE can decode

ParamsT = TypeVar("ParamsT", bound="Params")


@dataclass(frozen=True)
class Params:
    """Base class of the parameters."""


def read_params(kind: type[ParamsT], data: object) -> ParamsT:
    """Return parameters of this kind from an object of JSON. 15.0 counts as 15. Raises ValueError."""
    if not isinstance(data, Mapping):
        raise ValueError(f"The parameters must be an object, not {quote_value(data)}.")
    known: dict[str, Field[Any]] = {field.name: field for field in fields(kind)}
    for name in data:
        if name not in known:
            raise ValueError(f"{quote_value(name)} is not a parameter; the parameters are {', '.join(known)}.")
    for name, field in known.items():
        if name not in data and field.default is MISSING:
            raise ValueError(f"The {name} is missing.")
    return kind(**{str(name): as_int(value) for name, value in data.items()})


@dataclass(frozen=True)
class ForwardParams(Params):
    """A picture to add noise to.

    picture: the number of an example, or a data URI.
    size: side in px, or of the latents, one of `studio.lab.forward.SIZES`.
    seed: of the noise.
    standardize: bring the picture to mean 0 and variance 1 first.
    space: "pixels" or "latents", to which noise is added. model: whose VAE encodes the picture; "" is any loaded one.
    """

    picture: int | str
    size: int = 64
    seed: int = 0
    standardize: bool = False
    space: str = "pixels"
    model: str = ""

    def __post_init__(self) -> None:
        _check_picture(self.picture)
        check_int("seed", self.seed, 0, MAX_SEED)
        check_bool("standardize", self.standardize)
        check_choice("space", self.space, SPACES)
        check_text("model", self.model)


@dataclass(frozen=True)
class NoisedParams(Params):
    """A point of the forward process.

    t: train step. schedule: a name of `studio.lab.schedules.SCHEDULES`. The rest as in `ForwardParams`.
    """

    t: int = 500
    schedule: str = "model"
    size: int = 64
    seed: int = 0
    standardize: bool = False
    space: str = "pixels"
    model: str = ""

    def __post_init__(self) -> None:
        check_text("schedule", self.schedule)
        check_int("seed", self.seed, 0, MAX_SEED)
        check_bool("standardize", self.standardize)
        check_choice("space", self.space, SPACES)
        check_text("model", self.model)


@dataclass(frozen=True)
class LatentsParams(Params):
    """A picture to show beside its latents.

    picture: as in `ForwardParams`. size: side in px. model: whose VAE is used; "" is any loaded one.
    """

    picture: int | str
    size: int = 512
    model: str = ""

    def __post_init__(self) -> None:
        _check_picture(self.picture)
        check_size(self.size, PICTURE_SIZES)
        check_text("model", self.model)


def check_size(size: object, sizes: tuple[int, ...]) -> None:
    """Raise ValueError if a size is not one of these."""
    if isinstance(size, bool) or size not in sizes:
        raise ValueError(f"The size must be one of {', '.join(map(str, sizes))}; it was {quote_value(size)}.")


def _check_picture(picture: object) -> None:
    if isinstance(picture, bool) or not isinstance(picture, int | str):
        found = quote_value(picture)
        raise ValueError(f"The picture must be the number of an example or a data URI, not {found}.")


@dataclass(frozen=True)
class CloudParams(Params):
    """Points to learn: a named shape, letters, or a drawing of strokes."""

    shape: str
    text: str = ""
    strokes: Any = ()  # checked by studio.lab.plane.cloud_from_strokes

    def __post_init__(self) -> None:
        check_text("shape", self.shape)
        check_text("text", self.text)


@dataclass(frozen=True)
class TrainParams(Params):
    """Seconds of training, and where the points go afterwards.

    label, away: the class to generate and the class to avoid; None stands for both classes.
    """

    key: str
    seconds: float = 0.0
    label: int | None = None
    away: int | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        check_text("key", self.key)
        check_number("seconds", self.seconds, 0.0, MAX_TRAINING_SECONDS)
        for name, value in (("label", self.label), ("away", self.away)):
            if value is not None:
                check_int(name, value, 0, 1)
        check_number("guidance", self.guidance, 0.0, MAX_GUIDANCE_2D)


@dataclass(frozen=True)
class StageParams(Params):
    """A stage of an opened run."""

    key: str
    stage: int = 0

    def __post_init__(self) -> None:
        check_text("key", self.key)
        check_int("stage", self.stage, 0, MAX_SEED)


@dataclass(frozen=True)
class InspectParams(StageParams):
    """A stage of an opened run, to inspect the network in. step: index in the stage, of a latent model's run."""

    step: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("step", self.step, 0, MAX_SEED)


@dataclass(frozen=True)
class DecodeParams(InspectParams):
    """Latents of an opened run, to decode. array: the latents of the step, one of ARRAYS."""

    array: str = "x0"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("array", self.array, ARRAYS)


@dataclass(frozen=True)
class AnimationParams(Params):
    """Pictures as data URIs, and the file to make of them."""

    frames: list[str]
    kind: str = "webp"
    seconds: float = 6.0

    def __post_init__(self) -> None:
        if not isinstance(self.frames, list):
            raise ValueError(f"The frames must be a list of data URIs, not {quote_value(self.frames)}.")
        if len(self.frames) > MAX_FRAMES:
            raise ValueError(f"An animation may have at most {MAX_FRAMES} frames; this one has {len(self.frames)}.")
        check_choice("kind", self.kind, tuple(ANIMATION_TYPES))
        check_number("seconds", self.seconds, 0.1, MAX_ANIMATION_SECONDS)


@dataclass(frozen=True)
class RunParams(Params):
    """One run from words. `TextToImage` checks the fields.

    seed: None draws one.
    model: id; "" is the default model.
    width, height, spacing: see `TextToImage`.
    label: the run's name in a comparison.
    """

    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 10
    guidance: float = 3.0
    sampler: str = "studio"
    seed: int | None = None
    one_pass: bool = False
    style_emphasis: bool = False
    model: str = ""
    width: int | None = None
    height: int | None = None
    spacing: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        check_text("label", self.label)

    def request(self) -> TextToImage:
        """Return the request of the run. Raises InvalidRequest."""
        return TextToImage(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            steps=self.steps,
            guidance=self.guidance,
            sampler=self.sampler,
            seed=seed_or_random(self.seed),
            one_pass=self.one_pass,
            style_emphasis=self.style_emphasis,
            model_id=self.model,
            width=self.width,
            height=self.height,
            spacing=self.spacing,
            style=ANY,
            background=ANY,
        )


@dataclass(frozen=True)
class CompareParams(Params):
    """Two to four runs, each an object of `RunParams`."""

    runs: list[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.runs, list):
            raise ValueError(f"The runs must be a list, not {quote_value(self.runs)}.")
        if not MIN_COMPARED <= len(self.runs) <= MAX_COMPARED:
            raise ValueError(f"Compare {MIN_COMPARED} to {MAX_COMPARED} runs; there are {len(self.runs)}.")

    def run_params(self) -> list[RunParams]:
        """Return the runs, their labels cut to MAX_LABEL characters. Raises ValueError."""
        runs = [read_params(RunParams, run) for run in self.runs]
        return [replace(run, label=run.label[:MAX_LABEL]) for run in runs]
