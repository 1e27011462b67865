"""The mask editor as HTML: a picture to paint a mask on. Brush, eraser and undo are mask_editor.js's.

Not a gr.ImageEditor: it takes seconds to appear, hides what lies under the mask, and sends the picture back with every
stroke. Here only the mask comes back, so that a known pixel cannot be changed on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from studio.ui.scripts import on_event, on_load

# Gradio knows the event "paint" by its name in this script.
EDITOR_SCRIPT = on_load("mask_editor.js", "mountMaskEditor(element, () => trigger('paint'), watch)")
ADD_MASK = on_event("mask_editor.js", "addMask(values)")


def mask_editor_html(picture: str, mask: str, size: tuple[int, int], key: str, notes: Sequence[str] = ()) -> str:
    """picture, mask: their URLs, the mask's "" for none.  size: of the picture.  key: what it is called when strokes
    come back, so that none lands on another.  notes: sentences about the picture."""
    width, height = size
    said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return (
        '<section class="editor" aria-label="Picture and mask">'
        f'<div class="board" style="--shape:{width}/{height}" data-width="{width}" data-height="{height}" '
        f'data-key="{escape(key)}" data-mask="{escape(mask)}">'
        f'<img src="{escape(picture)}" alt="The picture that is worked on" draggable="false">'
        '<canvas aria-label="Mask: paint over what is to change"></canvas><i class="ring" aria-hidden="true"></i></div>'
        '<div class="tools" role="toolbar" aria-label="Mask">'
        '<button type="button" data-tool="brush" aria-pressed="true" title="Brush (B)">Brush</button>'
        '<button type="button" data-tool="eraser" aria-pressed="false" title="Eraser (E)">Eraser</button>'
        '<input type="range" data-size min="1" max="50" value="12" aria-label="Size of the brush" '
        'title="Size of the brush ([ and ])">'
        '<button type="button" data-do="undo" title="Undo (Ctrl+Z)" disabled>Undo</button>'
        '<button type="button" data-do="redo" title="Redo (Ctrl+Y)" disabled>Redo</button>'
        '<button type="button" data-do="clear">Clear</button></div>'
        f'<p class="size">{width:,} × {height:,} px. Paint over what is to change.</p>{said}</section>'
    )
