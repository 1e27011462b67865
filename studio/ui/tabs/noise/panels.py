"""The noise tab's HTML, from the templates in templates/noise. The scripts in static/noise draw into it."""

from __future__ import annotations

import json
from typing import Any

from studio.engine.requests import TextToImage
from studio.models.capabilities import Capabilities
from studio.models.identify import STUDIO
from studio.services.noise.params import MAX_COMPARED, PICTURE_SIZES
from studio.ui.components.templates import render

VIEWS = {
    "forward": "Forward",
    "reverse": "Reverse",
    "compare": "Compare",
    "latents": "Pixels and latents",
    "plane": "In 2D",
}
_EXPORT_KINDS = (
    ("webp", "WebP", "animation, lossless"),
    ("gif", "GIF", "animation"),
    ("mp4", "MP4", "film; takes as long as it plays"),
    ("strip", "PNG", "all moments side by side"),
    ("csv", "CSV", "the numbers, as a table"),
    ("json", "JSON", "the numbers, and the link to this view"),
)
_EXAMPLE_PROMPT = "a red apple, glossy style, on a blue background"  # of the shipped run


def panels_html(capabilities: Capabilities) -> str:
    """Return the whole tab, before anything is drawn, for a model that is chosen at first."""
    return render(
        "noise/panels.html",
        views=VIEWS,
        export_kinds=_EXPORT_KINDS,
        samplers=capabilities.samplers,
        model=json.dumps(model_info(capabilities)),
        picture_sizes=PICTURE_SIZES,
        prompt=_EXAMPLE_PROMPT,
        max_compared=MAX_COMPARED,
    )


def model_info(capabilities: Capabilities) -> dict[str, Any]:
    """Return what the tab's scripts need to know of a model. defaults: of fields of the tab's forms."""
    defaults = {"sampler": next(iter(capabilities.samplers), ""), "steps": 10, "guidance": 3.0}
    own = capabilities.defaults.get(TextToImage.task, {})
    return {
        "id": capabilities.model_id,
        "name": capabilities.name,
        "latent": capabilities.family != STUDIO,
        "samplers": dict(capabilities.samplers),
        "defaults": {name: own.get(name, value) for name, value in defaults.items()},
    }
