"""The models of the catalog as HTML: a card for each one, and the folders that they are looked for in."""

from __future__ import annotations

from studio.models.capabilities import Capabilities
from studio.models.catalog import ModelEntry
from studio.services.context import AppContext
from studio.services.naming import TASK_NAMES
from studio.ui.components.formatting import format_bytes, format_number
from studio.ui.components.templates import render
from studio.ui.controls.follow import settings_text

FAMILY_NAMES = {
    "studio": "This studio's own kind",
    "stable-diffusion": "Stable Diffusion 1 or 2",
    "sdxl": "Stable Diffusion XL",
    "sdxl-refiner": "Refiner of Stable Diffusion XL",
    "upscaler-x4": "×4 upscaler",
    "unknown": "Unknown",
}
VARIANT_NAMES = {
    "text-to-image": "Text to image",
    "inpainting": "Inpainting (a network with mask channels)",
    "lcm": "Latent consistency (LCM)",
    "turbo": "Turbo",
}
PREDICTION_NAMES = {"epsilon": "The noise (epsilon)", "v_prediction": "Velocity (v)", "sample": "The picture (sample)"}
NUMBER_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def cards_html(context: AppContext, chosen_id: str) -> str:
    """Return a card for each model. chosen_id: the model of the page, "" for the default one."""
    entries = context.catalog.entries
    chosen_id = chosen_id or entries[0].id
    return render("model_cards.html", cards=[_card(context, entry, chosen_id) for entry in entries])


def cards_key(context: AppContext, chosen_id: str) -> str:
    """Return a text that changes with the cards."""
    engine = context.engine
    entries = [(entry.id, dict(entry.overrides), entry.problems) for entry in context.catalog.entries]
    return repr((chosen_id, sorted(engine.loaded), engine.status.loading, entries))


def folders_html(context: AppContext) -> str:
    """Return where models are looked for, and how to name other folders."""
    return render("model_folders.html", folders=[folder.resolve() for folder in context.catalog.folders])


def _card(context: AppContext, entry: ModelEntry, chosen_id: str) -> dict[str, object]:
    """Return what the template needs of a model."""
    engine, identity = context.engine, entry.identity
    state = "loaded" if entry.id in engine.loaded else "loading" if entry.id == engine.status.loading else ""
    capabilities = None if entry.problems else context.capabilities_of(entry.id)
    return {
        "entry": entry,
        "is_chosen": entry.id == chosen_id,
        "can_change": context.manages_models and identity.family != "studio",
        "state": state,
        "kind": _kind(entry),
        "facts": _facts(entry, capabilities),
        "evidence": identity.evidence,
        "changed": _changed(entry),
    }


def _kind(entry: ModelEntry) -> str:
    identity = entry.identity
    variant = "" if identity.variant == "text-to-image" else f", {VARIANT_NAMES[identity.variant].lower()}"
    return f"{identity.version}{variant}"


def _facts(entry: ModelEntry, capabilities: Capabilities | None) -> list[tuple[str, str]]:
    identity = entry.identity
    size = f"{format_bytes(entry.bytes)} on disk"
    if entry.parameters:
        size += f", {format_number(entry.parameters)} parameters"
    if entry.dtype:
        size += f" as {NUMBER_TYPES.get(entry.dtype, entry.dtype)}"
    facts = [("Size", size)]
    if capabilities is not None:
        facts.append(("Tasks", ", ".join(TASK_NAMES[task] for task in capabilities.tasks)))
        if capabilities.tasks:
            facts.append(("Own settings", settings_text(capabilities, capabilities.tasks[0])))
        facts.append(("Predicts", PREDICTION_NAMES.get(identity.prediction_type, identity.prediction_type)))
    facts += [("Trigger words", entry.trigger_words), ("File" if entry.layout == "file" else "Folder", str(entry.path))]
    return [(name, value) for name, value in facts if value]


def _changed(entry: ModelEntry) -> str:
    """Return what a person has set for a model, as a sentence."""
    names = [name.replace("_", " ") for name, value in entry.overrides.items() if value]
    return f"You have set: {', '.join(names)}." if names else ""
