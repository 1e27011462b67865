"""The mask editor as HTML: a picture to paint a mask on. mask_editor.js draws with brush, eraser and undo.

A gr.ImageEditor takes seconds to appear, hides what is under the mask, and sends the picture back with every stroke.
This editor sends the mask alone, so that no known pixel can change on the way.
"""

from __future__ import annotations

from studio.ui.components.formatting import PHOTOGRAPH_NOTE
from studio.ui.components.image_card import versioned_url
from studio.ui.components.templates import render
from studio.ui.scripts import on_event, on_load
from studio.ui.tabs.inpaint_draft import DraftView

# Gradio knows the event "paint" by its name in this script.
EDITOR_SCRIPT = on_load("mask_editor.js", "mountMaskEditor(element, () => trigger('paint'), watch)")
ADD_MASK = on_event("mask_editor.js", "addMask(values)")  # puts the painted mask into the last input
MODELS = (
    "Stable Diffusion XL inpainting (diffusers/stable-diffusion-xl-1.0-inpainting-0.1), FLUX.1 Fill or Kandinsky 2.2"
)


def mask_editor_html(draft: DraftView) -> str:
    """Return the editor of an owner's picture and mask."""
    width, height = draft.size
    return render(
        "mask_editor.html",
        picture_url=versioned_url(draft.picture_path),
        mask_url=versioned_url(draft.mask_path),
        width=width,
        height=height,
        key=draft.key,
        notes=[PHOTOGRAPH_NOTE.format(models=MODELS)] if draft.is_photograph else [],
    )
