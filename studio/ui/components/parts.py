"""Parts of a form that several tabs are built of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.models.capabilities import Capabilities
from studio.prompts.captions import ANY
from studio.ui.scripts import on_event

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
QUICK: dict[str, Any] = PRIVATE | {"queue": False}
Control = gr.Textbox | gr.Number | gr.Radio | gr.Dropdown | gr.Checkbox  # what holds a value of a form
IMAGE_TYPES = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"]


@contextmanager
def collapsible(name: str, label: str) -> Iterator[None]:
    """Hide the parts built inside until the label is clicked.

    A gr.Accordion adds the parts of a closed one to the page when it opens, and a moment later sets them to their
    first values again, over what was typed meanwhile. These parts are on the page from the start, out of sight.
    """
    gr.HTML(
        f'<button type="button" data-fold aria-expanded="false" aria-controls="{name}-parts">{escape(label)}</button>',
        elem_id=name,
        apply_default_css=False,
        js_on_load=None,
    )
    with gr.Column(elem_id=f"{name}-parts", elem_classes="folded"):
        yield


def view_token_box(tab: str) -> gr.Textbox:
    """Return the hidden field that names what a tab shows.

    The `change` of a gr.State is not noticed after events outside of Gradio's queue.
    """
    return gr.Textbox("", visible="hidden", elem_id=f"{_prefix(tab)}watched")


def run_buttons(tab: str, label: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """Return the button that runs, the one that stops, and the place for a sentence below them."""
    prefix = _prefix(tab)
    with gr.Row(elem_id=f"{prefix}run", elem_classes="run"):
        run = gr.Button(
            label,
            variant="primary",
            size="lg",
            elem_id=f"{prefix}generate",
            elem_classes="run-button",
            scale=3,
            min_width=120,
        )
        stop = gr.Button(
            "Stop",
            size="lg",
            elem_id=f"{prefix}stop",
            elem_classes="stop-button",
            interactive=False,
            scale=1,
            min_width=80,
        )
    message = gr.HTML("", elem_id=f"{prefix}message", elem_classes="message", apply_default_css=False)
    return run, stop, message


def style_and_background_controls(
    tab: str, capabilities: Capabilities, style: str, background: str
) -> dict[str, Control]:
    """Return the choices of a style and a background, with these defaults."""
    prefix = _prefix(tab)
    return {
        "style": gr.Radio(
            choices([ANY, *capabilities.styles]),
            value=style,
            label="Style",
            elem_id=f"{prefix}style",
            elem_classes="joined",
        ),
        "background": gr.Radio(
            choices([ANY, *capabilities.backgrounds]),
            value=background,
            label="Background",
            elem_id=f"{prefix}background",
            elem_classes="swatches",
        ),
    }


def count_control(tab: str, capabilities: Capabilities, label: str) -> gr.Radio:
    """Return the choice of how many pictures to paint."""
    low, high = capabilities.count
    numbers = [(str(number), number) for number in range(low, high + 1)]
    return gr.Radio(numbers, value=low, label=label, elem_id=f"{_prefix(tab)}count", elem_classes="joined")


def negative_prompt_control(tab: str) -> gr.Textbox:
    """Return the field for what to avoid."""
    return gr.Textbox(
        "", label="Negative prompt", placeholder="what to avoid", max_lines=4, elem_id=f"{_prefix(tab)}negative"
    )


def number_controls(tab: str, capabilities: Capabilities, steps: int, guidance: float) -> dict[str, Control]:
    """Return the fields for steps and guidance, side by side, with these defaults.

    They are no sliders: the browser cuts a typed value to a slider's range without a word.
    """
    prefix = _prefix(tab)
    with gr.Row(elem_id=f"{prefix}numbers", elem_classes="numbers"):
        return {
            "steps": gr.Number(
                steps, step=1, label=_with_range("Steps", capabilities.steps), elem_id=f"{prefix}steps", min_width=120
            ),
            "guidance": gr.Number(
                guidance,
                step=0.5,
                label=_with_range("Guidance", capabilities.guidance),
                elem_id=f"{prefix}guidance",
                min_width=120,
            ),
        }


def seed_controls(tab: str) -> tuple[gr.Number, gr.Checkbox]:
    """Return the field for the seed, and the switch that draws a new one for every job."""
    prefix = _prefix(tab)
    with gr.Row(elem_id=f"{prefix}seeds", elem_classes="seeds"):
        seed = gr.Number(0, label="Seed", elem_id=f"{prefix}seed", min_width=120)
        randomize = gr.Checkbox(True, label="Random seed", elem_id=f"{prefix}randomize", min_width=120)
    return seed, randomize


def message_html(sentences: Sequence[str], role: str = "status") -> str:
    """Return sentences for the place under the buttons. role: "alert" for an error."""
    return "".join(f'<p role="{role}">{escape(sentence)}</p>' for sentence in sentences if sentence)


def keep_draft(page: gr.Blocks, tab: str, controls: Mapping[str, Control]) -> None:
    """Keep the values of the controls in the browser, over a refresh and a restart, by their names."""
    components = list(controls.values())
    names = f"{json.dumps(tab)}, {json.dumps(list(controls))}"
    defaults = json.dumps([component.value for component in components])
    gr.on(
        [component.change for component in components],
        None,
        components,
        None,
        js=on_event("drafts.js", f"keepDraft({names}, values)"),
        trigger_mode="multiple",
        **QUICK,
    )
    restore = on_event("drafts.js", f"restoreDraft({names}, {defaults}, values)")
    page.load(None, components, components, js=restore, **QUICK)


def choices(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return choices whose labels are the capitalized keys."""
    return [(key.capitalize(), key) for key in keys]


@contextmanager
def uploaded_file(path: str | None) -> Iterator[Path]:
    """Give an uploaded file, and remove it afterwards. Raises ValueError if none arrived."""
    if not path:
        raise ValueError("The file did not arrive; please choose it again.")
    try:
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)


def _prefix(tab: str) -> str:
    """Return what the ids of a tab's parts begin with: nothing for the first tab, whose ids came first."""
    return "" if tab == "text-to-image" else f"{tab}-"


def _with_range(name: str, allowed: tuple[float, float]) -> str:
    """Return a label with the smallest and the largest allowed value."""
    return f"{name}, {allowed[0]:g} to {allowed[1]:g}"
