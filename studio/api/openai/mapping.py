"""From a body of the Images API to a request of the studio, with notes about what was mapped or not read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from studio.api.jobs import build_model_request
from studio.api.openai.bodies import ALLOWED, DEFAULT_COMPRESSION, GenerationBody, ImageBody
from studio.api.openai.errors import CallRefused
from studio.engine.checks import InvalidRequest, quote_value
from studio.engine.requests import Inpaint, TextToImage
from studio.imaging.files import MAX_SIDE
from studio.models.capabilities import Capabilities
from studio.services.build_request import random_seed
from studio.services.context import AppContext

FOREIGN_MODELS = ("dall-e", "gpt-image", "chatgpt-image")  # names that clients send without being asked
QUALITIES = {"auto": "medium", "standard": "medium", "medium": "medium", "low": "low", "high": "high", "hd": "high"}
MAX_WEBP_SIDE = 16_383  # px, by the format
FORMATS = ("png", "jpeg", "webp")
STEP_FACTORS = {"low": 0.5, "medium": 1.0, "high": 2.0}


@dataclass(frozen=True)
class Call:
    """A request, and how its pictures are sent.

    compression: quality of JPEG and WebP, 0 to 100.
    partials: pictures on the way that a stream sends.
    """

    request: TextToImage | Inpaint
    output_format: str
    compression: int
    by_url: bool
    quality: str
    partials: int = 0
    notes: list[str] = field(default_factory=list[str])


def read_call(
    context: AppContext, body: ImageBody, image: Image.Image | None = None, mask: Image.Image | None = None
) -> Call:
    """Return what a body asks for.

    image: to paint anew.  mask: mode L, 255 where the image is painted.
    Raises CallRefused, InvalidRequest.
    """
    notes: list[str] = []
    model = read_model(context, body.model, notes)
    capabilities = context.capabilities_of(model)
    output_format = _choice("output_format", body.output_format, FORMATS)
    by_url = _choice("response_format", body.response_format, ("b64_json", "url")) == "url"
    values: dict[str, Any] = {"prompt": "", "count": body.n or 1, "seed": random_seed()}
    quality = "medium"
    if isinstance(body, GenerationBody):
        quality = QUALITIES[_choice("quality", body.quality, tuple(QUALITIES))]
        values["prompt"] = body.prompt
        values |= _look(body, notes)
    kind = TextToImage if mask is None else Inpaint
    values |= _effort(capabilities, kind.task, quality, notes)
    size = _read_size(body.size)
    if kind is Inpaint:
        request = build_model_request(context, Inpaint, model, values | {"image": image, "mask": mask})
    else:
        values |= {"image": image, "randomize_style": capabilities.vocabulary is not None}
        if size is not None:
            values |= _fit_size(capabilities, size)
        request = build_model_request(context, TextToImage, model, values)
    resolved = context.engine.resolve(request)
    if output_format == "webp" and max(resolved.width, resolved.height) > MAX_WEBP_SIDE:
        raise CallRefused(
            f"The output_format must be png or jpeg for a picture of {resolved.width} x {resolved.height} px: WebP "
            f"has at most {MAX_WEBP_SIDE} px a side.",
            "output_format",
        )
    if size is not None and size != (resolved.width, resolved.height):
        notes.append(
            f"The size is {resolved.width}x{resolved.height}; {body.size} was asked for, which {capabilities.name} "
            "does not give here."
        )
    partials = (body.partial_images or 0) if isinstance(body, GenerationBody) else 0
    compression = DEFAULT_COMPRESSION if body.output_compression is None else body.output_compression
    return Call(request, output_format, compression, by_url, quality, partials, notes)


def read_model(context: AppContext, name: str | None, notes: list[str]) -> str:
    """Return the id of the model that a call names; "" for the default one. Raises CallRefused."""
    if not name or name.startswith(FOREIGN_MODELS):
        if name:
            notes.append(f"The model is {context.capabilities.name}; {name} is not a model of this studio.")
        return ""
    try:
        context.capabilities_of(name)
    except InvalidRequest as problem:
        raise CallRefused(str(problem), "model", status=404, code="model_not_found") from problem
    return name


def mask_from_alpha(mask: Image.Image) -> Image.Image:
    """Return a mask, mode L, that is 255 where the picture is transparent. Raises CallRefused if it cannot be."""
    if mask.mode != "RGBA":
        raise CallRefused("The mask must be a picture with an alpha channel: its transparent part is painted.", "mask")
    return mask.getchannel("A").point([255] + [0] * 255)


def _choice(name: str, value: str | None, choices: tuple[str, ...]) -> str:
    """Return a value that must be one of the choices; the first one where it is left out. Raises CallRefused."""
    if value is None:
        return choices[0]
    if value not in choices:
        raise CallRefused(f"The {name} must be {ALLOWED[name]}; it was {quote_value(value)}.", name)
    return value


def _read_size(text: str | None) -> tuple[int, int] | None:
    """Return (width, height) in px, None for the model's own. Raises CallRefused."""
    if text in (None, "", "auto"):
        return None
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise CallRefused(
            f"The size must be {ALLOWED['size']}, up to {MAX_SIDE} px a side; it was {quote_value(text)}.", "size"
        )
    return size


def _fit_size(capabilities: Capabilities, size: tuple[int, int]) -> dict[str, int]:
    """Return the fields for the size nearest to (width, height) in px that the model paints."""
    if capabilities.size is not None:
        width, height = capabilities.size.fit(size)
        return {"width": width, "height": height}
    if capabilities.resolutions:
        return {"resolution": min(capabilities.resolutions, key=lambda side: abs(side - min(size)))}
    return {}


def _effort(capabilities: Capabilities, task: str, quality: str, notes: list[str]) -> dict[str, Any]:
    """Return the fields for a quality: a preset of the model, or fewer or more steps. Medium is the model's own."""
    defaults = dict(capabilities.defaults.get(task, {}))
    # What build_model_request takes from the model where it is left out.
    values: dict[str, Any] = dict.fromkeys(("steps", "guidance", "sampler", "spacing", "clip_skip", "guidance_rescale"))
    if quality == "medium":
        return values
    preset = {"low": capabilities.live_preset or "", "high": "best"}[quality]
    if task == TextToImage.task and preset in capabilities.presets:
        notes.append(f"Quality {quality} is the preset {preset}.")
        return values | dict(capabilities.presets[preset])
    kind = Inpaint if task == Inpaint.task else TextToImage
    low, high = capabilities.steps
    values["steps"] = min(max(round(defaults.get("steps", kind.steps) * STEP_FACTORS[quality]), low), high)
    notes.append(f"Quality {quality} is {values['steps']} steps.")
    return values


def _look(body: GenerationBody, notes: list[str]) -> dict[str, Any]:
    """Return the fields for style and background."""
    values: dict[str, Any] = {}
    if body.style in ("vivid", "natural"):
        notes.append(f"The style {body.style} is not read; the styles are the model's.")
    elif body.style:
        values["style"] = body.style
    if body.background == "transparent":
        notes.append("The background is opaque: no model of this studio paints transparent pictures.")
    elif body.background and body.background not in ("auto", "opaque"):
        values["background"] = body.background
    return values
