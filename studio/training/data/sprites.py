"""Emoji artwork as sprites: four hands drew each concept; here their SVG becomes one tensor of RGBA pictures.

Knows the icon packages' files (`icons.json`, `metadata.json`, as npm lays them down) and how to render them.
Knows nothing of scenes, captions or networks. Run once, at preparation time:

    npm install --prefix CACHE @iconify-json/noto @iconify-json/twemoji \
        @iconify-json/fluent-emoji @iconify-json/fluent-emoji-flat emojibase-data
    python -m studio.training.data.sprites --packages CACHE/node_modules --out CACHE/sprites
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

# Style word in captions -> npm package of the hand that draws so.
PACKAGES = {"noto": "noto", "twemoji": "twemoji", "flat": "fluent-emoji-flat", "glossy": "fluent-emoji"}
STYLES = tuple(PACKAGES)
CATEGORIES = (
    "Animals & Nature",
    "Food & Drink",
    "Activities",
    "Objects",
    "Travel & Places",
    "Smileys & Emotion",
)
SIZE = 128  # px: twice the bundled model's picture, so that super-resolution has something to learn from
HELD_OUT_SHARE = 0.03  # of (concept, style) pairs: never trained on, for measuring generalization


@dataclass(frozen=True)
class Sprites:
    """Pictures `rgba` (N, 4, SIZE, SIZE) uint8, premultiplied by alpha; sprite i shows `concept[i]` in `style[i]`."""

    rgba: torch.Tensor
    concept: torch.Tensor  # (N,) index into `concepts`
    style: torch.Tensor  # (N,) index into STYLES
    held_out: torch.Tensor  # (N,) bool
    concepts: tuple[str, ...]  # names with spaces
    categories: tuple[str, ...]  # category of each concept
    synonyms: tuple[tuple[str, ...], ...]  # other words for each concept, each naming no other one

    def __len__(self) -> int:
        return len(self.rgba)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = {name: json.dumps(getattr(self, name)) for name in ("concepts", "categories", "synonyms")}
        tensors = {name: getattr(self, name).contiguous() for name in ("rgba", "concept", "style", "held_out")}
        save_file(tensors, folder / "sprites.safetensors", metadata=names)

    @classmethod
    def load(cls, folder: str | Path) -> Sprites:
        with safe_open(Path(folder) / "sprites.safetensors", "pt") as file:
            names = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("rgba", "concept", "style", "held_out")}
        return cls(
            **tensors,
            concepts=tuple(json.loads(names["concepts"])),
            categories=tuple(json.loads(names["categories"])),
            synonyms=tuple(tuple(words) for words in json.loads(names["synonyms"])),
        )


def held_out(concept: str, style: str) -> bool:
    """Whether the pair is kept from training: a property of its names, so that it never moves between runs."""
    digest = hashlib.sha256(f"{concept}/{style}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE


def common_concepts(icons: Path) -> dict[str, str]:
    """Icon name -> category, of the concepts that all four packages draw."""
    drawn = []
    for package in PACKAGES.values():
        book = json.loads((icons / package / "icons.json").read_text())
        drawn.append(set(book["icons"]) | set(book.get("aliases", {})))
    everywhere = set.intersection(*drawn)
    categories = json.loads((icons / "fluent-emoji-flat" / "metadata.json").read_text())["categories"]
    left_out = ("oclock", "thirty", "button", "keycap", "skin-tone")
    return {
        name: category
        for category in CATEGORIES
        for name in categories[category]
        if name in everywhere and not name.endswith(left_out)
    }


def cldr_synonyms(packages: Path, names: list[str]) -> tuple[tuple[str, ...], ...]:
    """CLDR keywords of each icon name, kept where they belong to one of `names` alone and are no part of any."""
    by_code = json.loads((packages / "@iconify-json" / "fluent-emoji-flat" / "chars.json").read_text())
    tags: dict[str, list[str]] = {name: [] for name in names}
    for emoji in json.loads((packages / "emojibase-data" / "en" / "data.json").read_text()):
        code = emoji["hexcode"].lower().removesuffix("-fe0f")
        name = by_code.get(code) or by_code.get(f"{code}-fe0f")
        if name in tags:
            tags[name] = [tag.lower() for tag in emoji.get("tags", [])]
    taken = {word for name in names for word in name.split("-")}
    owners = Counter(tag for words in tags.values() for tag in set(words))
    usable = {tag for tag, count in owners.items() if count == 1 and tag.isalpha() and tag not in taken}
    return tuple(tuple(tag for tag in tags[name] if tag in usable) for name in names)


def svg_of(book: dict, name: str) -> str:
    """One icon as an SVG document; an alias is drawn as its parent."""
    icon = book["icons"].get(name) or book["icons"][book["aliases"][name]["parent"]]
    width = icon.get("width", book.get("width", 16))
    height = icon.get("height", book.get("height", 16))
    left, top = icon.get("left", 0), icon.get("top", 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{SIZE}" height="{SIZE}">{icon["body"]}</svg>'
    )


def render(svg: str) -> torch.Tensor:
    """(4, SIZE, SIZE) uint8, premultiplied: resizing straight alpha would leave white fringes."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    rgba = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), dtype=np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return torch.from_numpy(rgba.round().astype(np.uint8)).permute(2, 0, 1)


def prepare(packages: Path, chosen: list[str] | None = None) -> Sprites:
    """Render `chosen` concepts (default: all common ones) in every style.

    Raises ValueError naming the chosen concepts that not every package draws.
    """
    icons = packages / "@iconify-json"
    common = common_concepts(icons)
    names = list(common) if chosen is None else chosen
    if unknown := [name for name in names if name not in common]:
        raise ValueError(f"not drawn in all four styles: {', '.join(unknown)}")
    concepts = [name.replace("-", " ") for name in names]
    rgba, concept, style, held = [], [], [], []
    for s, (word, package) in enumerate(PACKAGES.items()):
        book = json.loads((icons / package / "icons.json").read_text())
        for c, name in enumerate(names):
            rgba.append(render(svg_of(book, name)))
            concept.append(c)
            style.append(s)
            held.append(held_out(concepts[c], word))
    return Sprites(
        rgba=torch.stack(rgba),
        concept=torch.tensor(concept),
        style=torch.tensor(style),
        held_out=torch.tensor(held),
        concepts=tuple(concepts),
        categories=tuple(common[name] for name in names),
        synonyms=cldr_synonyms(packages, names),
    )


def listed(path: Path) -> list[str]:
    """Icon names of a list file: separated by white space, `#` starts a comment."""
    lines = (line.partition("#")[0] for line in path.read_text().splitlines())
    return list(dict.fromkeys(word for line in lines for word in line.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="the node_modules folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for sprites.safetensors")
    parser.add_argument("--concepts", type=Path, help="list of icon names; default: all that the four share")
    args = parser.parse_args()
    sprites = prepare(args.packages, listed(args.concepts) if args.concepts else None)
    sprites.save(args.out)
    print(f"{len(sprites)} sprites of {len(sprites.concepts)} concepts, {int(sprites.held_out.sum())} held out")


if __name__ == "__main__":
    main()
