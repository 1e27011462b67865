"""Captions of training scenes, in the phrasings that the model learns."""

from __future__ import annotations

import random

from studio.prompts.nouns import with_article


def random_caption(subject: str, style: str | None, background: str | None, rng: random.Random) -> str:
    """Return one of the phrasings that the model learns. `subject` begins with its article or number."""
    bare = subject.removeprefix("a ").removeprefix("an ")
    if style and background:
        return rng.choice(
            (
                f"{subject}, {style} style, on a {background} background",
                f"{subject}, {style} style, on a {background} background",
                f"{subject} in {style} style on a {background} background",
                f"{subject} on a {background} background, {style} style",
                f"{bare}, {style}, {background} background",
                f"{with_article(f'{style} {bare}')} on a {background} background",
                f"a {style} picture of {subject} on {background}",
            )
        )
    if style:
        return rng.choice(
            (
                f"{subject}, {style} style",
                f"{subject} in {style} style",
                f"{style} {bare}",
                f"{with_article(f'{style} {bare}')}",
                f"a {style} picture of {subject}",
            )
        )
    if background:
        return rng.choice(
            (
                f"{subject} on a {background} background",
                f"{subject} on {background}",
                f"{bare}, {background} background",
                f"a picture of {subject} on a {background} background",
                f"{background} background, {bare}",
            )
        )
    return rng.choice((subject, subject, bare, f"a picture of {subject}", f"an emoji of {subject}"))


def default_prompt(subject: str, style: str | None = None, background: str | None = None) -> str:
    """Return the phrasing of the page and of the evaluation: "a red apple, flat style, on a blue background"."""
    prompt = subject
    if style:
        prompt += f", {style} style"
    if background:
        prompt += f"{', on' if style else ' on'} a {background} background"
    return prompt
