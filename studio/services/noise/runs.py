"""Runs that are open in the noise tab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.engine.requests import Denoise, TextToImage
from studio.models.samplers import SAMPLER_LABELS
from studio.prompts.nouns import without_style

_VALUES = ("negative_prompt", "steps", "guidance", "sampler", "seed", "spacing", "width", "height")
_SWITCHES = ("one_pass", "style_emphasis")


@dataclass(frozen=True)
class OpenRun:
    """A trace, and the settings of the run that recorded it.

    picture_id: of the library; "" if the picture is not kept.
    params: the `RunParams` that repeat the run; None if words alone cannot.
    is_denoised: whether the run removed the noise of a picture.
    emphasizes_style: whether guidance emphasized the style.
    passes: network rows for each tile where guidance acts; only known for a run that was started here.
    """

    trace: Any
    caption: str
    sampler: str
    picture_id: str = ""
    params: dict[str, Any] | None = None
    is_denoised: bool = False
    emphasizes_style: bool = False
    passes: int = 2

    @property
    def is_latent(self) -> bool:
        """Whether the run is one of a latent model."""
        return self.trace.model.space == "latent"

    def check_step(self, stage: int, step: int) -> int:
        """Return the index of a step in a stage. Raises ValueError if the stage has no such step."""
        last = len(self.trace.stages[stage].step) - 1
        if step > last:
            raise ValueError(f"The step must be a whole number from 0 to {last}; it was {step}.")
        return step

    @classmethod
    def from_settings(cls, trace: Any, settings: Mapping[str, Any], picture_id: str, from_words: bool) -> OpenRun:
        """Return the run of a picture.

        settings: of its request and of the picture itself.
        from_words: whether the run started without another picture.
        """
        caption, sampler = str(settings.get("caption", "")), settings.get("sampler", "studio")
        params = None
        if from_words and settings.get("task") == TextToImage.task and settings.get("resolution") is None:
            params = {name: settings[name] for name in _VALUES if settings.get(name) is not None}
            params |= {"prompt": caption, "model": trace.model.id}
            params |= {name: bool(settings.get(name)) for name in _SWITCHES}
        return cls(
            trace,
            caption,
            sampler if sampler in SAMPLER_LABELS else "studio",
            picture_id,
            params,
            is_denoised=settings.get("task") == Denoise.task,
            emphasizes_style=settings.get("style_emphasis") is True and without_style(caption) != caption,
        )
