"""The label beside a result as HTML: its title, how it was made or how far it is, and what to do with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from studio.engine.requests import AREAS, Inpaint, SuperResolve, TextToImage
from studio.models.samplers import SAMPLER_LABELS, SPACING_LABELS
from studio.ui.components.formatting import shorten
from studio.ui.components.image_card import ImageCard, title_of
from studio.ui.components.templates import render

LANCZOS = "Lanczos"  # the name of a plain enlargement that a result is compared with
MAX_NEGATIVE_PROMPT = 120  # characters
MAX_MODEL = 60  # characters of a model's name


class Action(NamedTuple):
    """A button that sends its `pick` with the key of the selected picture."""

    pick: str
    name: str


def done_label(card: ImageCard, *, heading: str = "", notes: Iterable[str] = (), count: int = 1) -> str:
    """Return the label of a finished picture. count: the pictures of its job."""
    return render(
        "label.html",
        heading=heading,
        title=card.title,
        facts=facts(card.settings, count),
        notes=list(notes),
        card=card,
        actions=_actions(card),
    )


def running_label(settings: Mapping[str, Any], share: float, progress: str) -> str:
    """Return the label of a running job. share: of its work that is done, 0 to 1."""
    note = "The finished picture as the model predicts it at this step."
    return render(
        "progress_label.html",
        title=title_of(settings),
        model=settings.get("model", ""),
        share=share,
        progress=progress,
        role="Progress",
        note=note,
    )


def waiting_label(settings: Mapping[str, Any], message: str, share: float | None = None) -> str:
    """Return the label of a job without a preview. share: of its work that is done, 0 to 1; None if unknown."""
    role = "Waiting" if share is None else "Progress"
    return render(
        "progress_label.html",
        title=title_of(settings),
        model=settings.get("model", ""),
        share=share,
        progress=message,
        role=role,
        note="",
    )


def stopped_label(settings: Mapping[str, Any], step: int, steps: int) -> str:
    """Return the label of a cancelled job."""
    sentence = f"Stopped at step {step} of {steps}." if step else "Stopped before its first step."
    note = "The preview shows how far the picture got. It was not kept." if step else ""
    return render("ended_label.html", title=title_of(settings), sentence=sentence, note=note, is_error=False)


def failed_label(settings: Mapping[str, Any], problem: str) -> str:
    """Return the label of a failed job."""
    return render("ended_label.html", title=title_of(settings), sentence=problem, note="", is_error=True)


def live_label(settings: Mapping[str, Any], seconds: float) -> str:
    """Return the label of a picture that was painted while its owner types, and was not kept."""
    return render("live_label.html", title=title_of(settings), facts=[("Time", _seconds(seconds, 1))])


def facts(settings: Mapping[str, Any], count: int = 1) -> list[tuple[str, str]]:
    """Return how a picture was made: the names and values that its settings hold.

    count: the pictures among which its job's time was shared.
    """
    grow, feather, sigma = (settings.get(name) for name in ("grow", "feather", "sigma"))
    sampler, spacing = settings.get("sampler", ""), settings.get("spacing", "")
    rows = [
        ("Avoid", shorten(str(settings.get("negative_prompt") or ""), MAX_NEGATIVE_PROMPT)),
        ("Seed", _text(settings.get("seed", 0))),
        ("Steps", _text(settings.get("steps"))),
        ("Guidance", _text(settings.get("guidance"))),
        ("Sampler", SAMPLER_LABELS.get(sampler, _text(sampler))),
        ("Spacing", SPACING_LABELS.get(spacing, _text(spacing)) if spacing else ""),
        ("Clip skip", _text(settings.get("clip_skip") or None)),
        ("Guidance rescale", _text(settings.get("guidance_rescale") or None)),
        ("Refiner", _text(settings.get("refiner") or None)),
        ("Area", AREAS.get(settings.get("area", ""), "")),
        ("Mask grown by", f"{grow} px" if grow else ""),
        ("Feather", f"{feather} px" if feather else ""),
        ("Creativity", _text(settings.get("noise_level"))),
        ("Noise", f"{_text(sigma)} (scale 0–255)" if sigma else ""),
        ("Size", _text(settings.get("size", "")).replace("x", " × ")),
        ("Time", _seconds(settings.get("seconds"), count)),
        ("Model", shorten(_text(settings.get("model")), MAX_MODEL)),
        ("Model hash", _text(settings.get("model_hash") or None)),
    ]
    return [(name, value) for name, value in rows if value]


def _actions(card: ImageCard) -> list[Action]:
    """Return what can be done with a picture on the page, besides its download."""
    if not card.is_kept:
        return [Action("use", "Use these settings")] if card.task == TextToImage.task else []
    enlarge = Action("to:super-resolution", "Open in Super-resolution")
    actions = [Action("to:noise", "See how it was made")]
    if card.task == TextToImage.task:
        actions += [Action("use", "Use these settings")]
        actions += [Action("to:start", "Start from this picture")]
        actions += [Action("vary:subtle", "Vary subtly"), Action("vary:strong", "Vary strongly")]
    if card.task == Inpaint.task:
        return [*actions, Action("input", "Use as input"), enlarge, Action("to:start", "Start from this picture")]
    actions += [Action("to:inpaint", "Open in Inpaint"), enlarge]
    if card.task == SuperResolve.task and card.before_name == LANCZOS:
        actions.append(Action("before", "Compare with the small picture"))
    elif card.task == SuperResolve.task:
        actions.append(Action("lanczos", "Compare with Lanczos"))
    return actions


def _seconds(seconds: Any, count: int) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return f"{seconds:.2f} s" + (f" for {count}" if count > 1 else "")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
