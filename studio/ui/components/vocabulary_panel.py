"""The model's words on the page, as HTML: the panel to click them in, and what is said under the prompt."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from studio.models.capabilities import Capabilities
from studio.prompts.nouns import with_article
from studio.prompts.vocabulary import Vocabulary


def hints_html(capabilities: Capabilities, prompt: str, style: str, background: str) -> str:
    """The whole prompt that the model will read, and for each unknown word the nearest known to click."""
    whole, vocabulary = capabilities.caption(prompt, style, background), capabilities.vocabulary
    parts = []
    for unknown in vocabulary.unknown(prompt) if vocabulary else ():
        word = escape(unknown.word)
        choices = "".join(
            f'<button type="button" class="chip" data-swap="{word}" data-for="{escape(name)}">{escape(name)}</button>'
            for name in unknown.nearest
        )
        near = f"Nearest: {choices}" if choices else ""
        parts.append(f'<p class="unknown">The model does not know <b>{word}</b>. {near}</p>')
    if whole and whole != prompt.strip():
        shown = whole if len(whole) <= 240 else "… " + whole[-238:]
        parts.append(f'<p class="whole">Full prompt: <q>{escape(shown)}</q></p>')
    elif not whole:
        parts.append('<p class="whole">Left empty, the model paints whatever it likes.</p>')
    return "".join(parts)


def vocabulary_html(vocabulary: Vocabulary) -> str:
    """All concepts by category, with a field to narrow them down (page.js does that in the browser)."""
    sheet = vocabulary.thumbnails
    groups = "".join(
        f'<div class="group" data-group><h3>{escape(category)}</h3><div class="words">'
        + "".join(_word(vocabulary, index, name) for index, name in things)
        + "</div></div>"
        for category, things in vocabulary.categories.items()
    )
    style = ""
    if sheet:
        url = f"gradio_api/file={quote(str(sheet.path))}"
        style = f"--sheet:url('{escape(url)}');--columns:{sheet.columns};--rows:{sheet.rows}"
    count = len(vocabulary.concepts)
    return (
        f'<section class="vocabulary" style="{style}" aria-label="What the model knows">'
        f'<div class="head"><h2>What this model can paint <span>{count} things</span></h2>'
        '<input type="search" class="find" data-find placeholder="Find a word" aria-label="Find a word">'
        '</div><p class="two">Several at once: <q>an owl left of a cactus</q>, right of, above, below, next to; '
        "or <q>three foxes</q>.</p>"
        f'<div class="groups" tabindex="0" role="group" aria-label="Words by category">{groups}'
        '<p class="none" hidden>No such word here.</p></div></section>'
    )


def _word(vocabulary: Vocabulary, index: int, name: str) -> str:
    thumb = ""
    if sheet := vocabulary.thumbnails:
        thumb = f'<i style="--x:{index % sheet.columns};--y:{index // sheet.columns}"></i>'
    added = escape(with_article(name))
    return f'<button type="button" class="word" data-word="{added}">{thumb}{escape(name)}</button>'
