"""Parts that several tabs are built of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr


@contextmanager
def folded(name: str, label: str) -> Iterator[None]:
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
