"""Parts of a form that several tabs are built of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

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
    return gr.Textbox("", visible="hidden", elem_id=f"{element_prefix(tab)}watched")


def run_buttons(tab: str, label: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """Return the button that runs, the one that stops, and the place for a sentence below them."""
    prefix = element_prefix(tab)
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


def seed_controls(tab: str) -> tuple[gr.Number, gr.Checkbox]:
    """Return the field for the seed, and the switch that draws a new one for every job."""
    prefix = element_prefix(tab)
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


@contextmanager
def uploaded_file(path: str | None) -> Iterator[Path]:
    """Give an uploaded file, and remove it afterwards. Raises ValueError if none arrived."""
    if not path:
        raise ValueError("The file did not arrive; please choose it again.")
    try:
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)


def element_prefix(tab: str) -> str:
    """Return what the ids of a tab's parts begin with: nothing for the first tab, whose ids came first."""
    return "" if tab == "text-to-image" else f"{tab}-"
