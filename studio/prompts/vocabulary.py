"""The words that a model has learned: find the unknown words of a prompt, and the nearest known ones."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

# Words of captions that name nothing: they are never reported as unknown.
FUNCTION_WORDS = frozenset(
    """a an the and or with without of in on at to by from for its it is are as near next beside behind
    between left right above below under over top bottom side front back inside middle center centre
    background ground style styled coloured colored color colour picture image icon emoji drawing
    drawn painting painted photo art one two three four five six seven eight nine ten many some few
    several pair single plain pattern patterned small big large little tiny huge very light dark
    bright striped dotted checkered checked half beneath underneath""".split()
)
COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white gray grey cyan teal violet gold".split()
)
MAX_WORD = 32  # letters; a longer string is no word
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class UnknownWord:
    """A word that the model has not learned, and the nearest concepts that it has."""

    word: str
    nearest: tuple[str, ...]

    def __str__(self) -> str:
        near = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        return f"The model does not know “{self.word}”{near}."


@dataclass(frozen=True)
class Thumbnails:
    """A picture of square tiles, one per concept in the vocabulary's order, row by row."""

    path: Path
    tile: int  # side in px
    columns: int
    rows: int


@dataclass(frozen=True)
class Vocabulary:
    """Concepts as (name, category) in the order of the file, and synonyms as word -> concept."""

    concepts: tuple[tuple[str, str], ...]
    styles: tuple[str, ...] = ()
    backgrounds: tuple[str, ...] = ()
    synonyms: dict[str, str] = field(default_factory=dict)
    thumbnails: Thumbnails | None = None

    @classmethod
    def read(cls, folder: str | Path) -> Vocabulary | None:
        """Read vocabulary.json in a model folder. Return None if there is none or it cannot be read.

        {"concepts": [{"name", "category", "synonyms"?}], "styles", "backgrounds", "thumbnails"?: {"file", "tile"}}:
        thumbnails is a picture of square tiles, `tile` px a side, in the order of the concepts.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / "vocabulary.json").read_text("utf-8"))
            concepts = tuple((str(c["name"]), str(c.get("category", "Other"))) for c in content["concepts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        synonyms = {str(s).lower(): str(c["name"]) for c in content["concepts"] for s in c.get("synonyms", ())}
        return cls(
            concepts,
            tuple(content.get("styles", ())),
            tuple(content.get("backgrounds", content.get("grounds", ()))),
            synonyms,
            _thumbnails(folder, content.get("thumbnails") or {}, len(concepts)),
        )

    @property
    def categories(self) -> dict[str, list[tuple[int, str]]]:
        """Category -> (index, name) of its concepts, both in the order of the file."""
        categories: dict[str, list[tuple[int, str]]] = {}
        for index, (name, category) in enumerate(self.concepts):
            categories.setdefault(category, []).append((index, name))
        return categories

    @cached_property
    def _concept_of(self) -> dict[str, str]:
        """Each known word or name -> the concept that it stands for."""
        nearest = {}
        for name, _ in self.concepts:
            for word in _words(name):
                if len(word) > 3:
                    nearest.setdefault(word, name)
        nearest.update(self.synonyms)
        nearest.update((name.lower(), name) for name, _ in self.concepts)
        return nearest

    @cached_property
    def _known(self) -> frozenset[str]:
        texts = [name for name, _ in self.concepts] + list(self.synonyms) + [*self.styles, *self.backgrounds]
        return frozenset(word for text in texts for word in _words(text)) | FUNCTION_WORDS | COLOURS

    def unknown(self, prompt: str, limit: int = 5) -> list[UnknownWord]:
        """Return the words of a prompt that the model has not learned, each once, with up to 3 nearest concepts."""
        unknown: list[UnknownWord] = []
        for word in dict.fromkeys(_words(_beginning(prompt))):
            if len(unknown) == limit:
                break
            if len(word) > MAX_WORD:
                unknown.append(UnknownWord(word[: MAX_WORD - 1] + "…", ()))
            elif not self._is_known(word):
                unknown.append(UnknownWord(word, self._nearest(word)))
        return unknown

    def _is_known(self, word: str) -> bool:
        if word in self._known or word.isdigit():
            return True
        singular = {word.removesuffix("'s"), word.removesuffix("s"), word.removesuffix("es")}
        if word.endswith("ies"):
            singular.add(word[:-3] + "y")
        parts = word.split("-")
        return bool(singular & self._known) or (len(parts) > 1 and all(part in self._known for part in parts))

    def _nearest(self, word: str) -> tuple[str, ...]:
        keys = list(self._concept_of)
        inside = [key for key in keys if len(word) > 3 and (word in key or (len(key) > 3 and key in word))]
        close = get_close_matches(word, keys, n=8, cutoff=0.5) or get_close_matches(word, keys, n=3, cutoff=0.0)
        return tuple(dict.fromkeys(self._concept_of[key] for key in [*inside[:2], *close]))[:3]


def _beginning(text: str, limit: int = 2000) -> str:
    """Return the beginning of a text, at most `limit` characters, in whole words."""
    return text if len(text) <= limit else text[:limit].rpartition(" ")[0] or text[:limit]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _thumbnails(folder: Path, entry: dict[str, Any], count: int) -> Thumbnails | None:
    """Return the thumbnails that an entry describes; None if they are outside the folder, damaged or too few."""
    path = folder / str(entry.get("file", "thumbnails.png"))
    if path.resolve().parent != folder.resolve():
        return None
    try:
        with Image.open(path, formats=["PNG", "WEBP"]) as picture:
            tile = int(entry.get("tile", 32))
            columns, rows = picture.width // tile, picture.height // tile
    except (OSError, ValueError, TypeError, ZeroDivisionError):
        return None
    return Thumbnails(path.resolve(), tile, columns, rows) if columns * rows >= count else None
