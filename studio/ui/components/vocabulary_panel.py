"""The model's vocabulary as HTML: the panel of words to click, and the hints under the prompt."""

from __future__ import annotations

from studio.models.capabilities import Capabilities
from studio.prompts.nouns import with_article
from studio.prompts.vocabulary import Vocabulary
from studio.ui.components.image_card import image_url
from studio.ui.components.templates import render

MAX_CAPTION = 240  # characters of the full prompt, of which the end is shown


def hints_html(capabilities: Capabilities, prompt: str, style: str, background: str) -> str:
    """Return the full prompt that the model reads, and for each unknown word the nearest known ones to click."""
    caption, vocabulary = capabilities.caption(prompt, style, background), capabilities.vocabulary
    return render(
        "hints.html",
        unknown_words=vocabulary.unknown(prompt) if vocabulary else (),
        full_prompt=_ending(caption) if caption != prompt.strip() else "",
        is_empty=not caption and capabilities.vocabulary is not None,
        trigger_words=_missing_words(capabilities.trigger_words, prompt),
    )


def vocabulary_html(vocabulary: Vocabulary) -> str:
    """Return all concepts by category, with a search field that the browser handles."""
    sheet = vocabulary.thumbnails
    return render(
        "vocabulary.html",
        categories=vocabulary.categories,
        count=len(vocabulary.concepts),
        sheet=sheet,
        sheet_url=image_url(str(sheet.path)) if sheet else "",
        with_article=with_article,
    )


def _missing_words(trigger_words: str, prompt: str) -> list[str]:
    """Return the trigger words, separated by commas, that a prompt does not have."""
    words = [word.strip() for word in trigger_words.split(",")]
    return [word for word in words if word and word.lower() not in prompt.lower()]


def _ending(caption: str) -> str:
    return caption if len(caption) <= MAX_CAPTION else "… " + caption[2 - MAX_CAPTION :]
