"""Parts that several tabs are built of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

import gradio as gr
from gradio.components import Component

from studio.ui.scripts import on_event

PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
IMAGE_TYPES = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"]
QUICK = PRIVATE | {"queue": False}


@contextmanager
def collapsible(name: str, label: str) -> Iterator[None]:
    """What is folded away until its label is clicked.

    Not a gr.Accordion: what is in a closed one is put on the page only when it is opened, and a moment later Gradio
    sets it to its first values again, over what was typed meanwhile. This is there from the start, out of sight.
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
    """What a page watches in a tab. Not a gr.State, whose `change` is not noticed after events that do not go through
    Gradio's queue."""
    return gr.Textbox("", visible="hidden", elem_id="watched" if tab == "text-to-image" else f"{tab}-watched")


def run_buttons(tab: str, label: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """The button that runs, the one that stops, and room for a sentence below them."""
    prefix = "" if tab == "text-to-image" else f"{tab}-"
    with gr.Row(elem_id=f"{prefix}run", elem_classes="run"):
        run = gr.Button(
            label, variant="primary", size="lg", elem_id=f"{prefix}generate", elem_classes="run-button", scale=3, min_width=120
        )
        stop = gr.Button(
            "Stop", size="lg", elem_id=f"{prefix}stop", elem_classes="stop-button", interactive=False, scale=1, min_width=80
        )
    message = gr.HTML("", elem_id=f"{prefix}message", elem_classes="message", apply_default_css=False)
    return run, stop, message


def message_html(sentences: Sequence[str], role: str = "status") -> str:
    """What is said under the buttons: a mistake as an "alert"."""
    return "".join(f'<p role="{role}">{escape(sentence)}</p>' for sentence in sentences if sentence)


def keep_draft(page: gr.Blocks, tab: str, parts: Sequence[Component], names: Sequence[str]) -> None:
    """What is typed and chosen stays in the browser, over a refresh and a restart; the server has no part in it."""
    meta = f"{json.dumps(tab)}, {json.dumps(names)}"
    defaults = json.dumps([part.value for part in parts])
    gr.on(
        [part.change for part in parts],
        None,
        parts,
        None,
        js=on_event("drafts.js", f"keepDraft({meta}, values)"),
        trigger_mode="multiple",
        **QUICK,
    )
    restore = on_event("drafts.js", f"restoreDraft({meta}, {defaults}, values)")
    page.load(None, parts, parts, js=restore, **QUICK)


def choices(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Choices that say what they are called."""
    return [(key.capitalize(), key) for key in keys]


@contextmanager
def uploaded_file(path: str | None) -> Iterator[Path]:
    """A file that was uploaded, removed once it has been read. Raises ValueError if nothing arrived."""
    if not path:
        raise ValueError("The file did not arrive; please choose it again.")
    try:
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)
