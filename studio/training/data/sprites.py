"""Render emoji artwork to sprites: every concept in four styles, as one tensor of RGBA pictures.

The SVG comes from npm packages (`icons.json`, `metadata.json`). Run once, before training:

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

# Style word in captions -> npm package of the icon set in that style.
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
EXCLUDED_ENDINGS = ("oclock", "thirty", "button", "keycap", "skin-tone")  # of icon names
SPRITE_SIZE = 128  # px: twice the bundled model's picture, so that super-resolution has detail to learn from
HELD_OUT_SHARE = 0.03  # of (concept, style) pairs: never trained on, to measure generalization
TENSORS = ("rgba", "concept", "style", "held_out")


@dataclass(frozen=True)
class Sprites:
    """RGBA pictures of concepts in styles; sprite i shows `concepts[concept[i]]` in `STYLES[style[i]]`."""

    rgba: torch.Tensor  # (N, 4, S, S) uint8, premultiplied by alpha; S is SPRITE_SIZE unless rendered otherwise
    concept: torch.Tensor  # (N,) index into `concepts`
    style: torch.Tensor  # (N,) index into STYLES
    held_out: torch.Tensor  # (N,) bool: not for training
    concepts: tuple[str, ...]  # names with spaces
    categories: tuple[str, ...]  # category of each concept
    synonyms: tuple[tuple[str, ...], ...]  # other words for each concept; no word belongs to two concepts

    def __len__(self) -> int:
        return len(self.rgba)

    def held_out_pairs(self) -> list[tuple[int, int]]:
        """Return the held-out (concept, style) pairs, sorted."""
        rows = self.held_out.nonzero()[:, 0]
        return sorted(zip(self.concept[rows].tolist(), self.style[rows].tolist(), strict=True))

    def save(self, folder: Path) -> None:
        """Write `sprites.safetensors` into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        names = {name: json.dumps(getattr(self, name)) for name in ("concepts", "categories", "synonyms")}
        tensors = {name: getattr(self, name).contiguous() for name in TENSORS}
        save_file(tensors, folder / "sprites.safetensors", metadata=names)

    @classmethod
    def load(cls, folder: str | Path) -> Sprites:
        """Read what `save` wrote."""
        with safe_open(Path(folder) / "sprites.safetensors", "pt") as file:
            names = file.metadata()
            tensors = {name: file.get_tensor(name) for name in TENSORS}
        return cls(
            **tensors,
            concepts=tuple(json.loads(names["concepts"])),
            categories=tuple(json.loads(names["categories"])),
            synonyms=tuple(tuple(words) for words in json.loads(names["synonyms"])),
        )


def is_held_out(concept: str, style: str) -> bool:
    """Return whether the pair is kept from training. It depends on the names alone and never changes between runs."""
    digest = hashlib.sha256(f"{concept}/{style}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE


def find_common_concepts(icons: Path) -> dict[str, str]:
    """Return {icon name: category} of the concepts that all four packages contain."""
    names_by_package = []
    for package in PACKAGES.values():
        icon_set = json.loads((icons / package / "icons.json").read_text())
        names_by_package.append(set(icon_set["icons"]) | set(icon_set.get("aliases", {})))
    common = set.intersection(*names_by_package)
    categories = json.loads((icons / "fluent-emoji-flat" / "metadata.json").read_text())["categories"]
    return {
        name: category
        for category in CATEGORIES
        for name in categories[category]
        if name in common and not name.endswith(EXCLUDED_ENDINGS)
    }


def find_synonyms(packages: Path, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the CLDR keywords of each icon name that belong to no other of `names` and are no part of any name."""
    by_code = json.loads((packages / "@iconify-json" / "fluent-emoji-flat" / "chars.json").read_text())
    tags: dict[str, list[str]] = {name: [] for name in names}
    for emoji in json.loads((packages / "emojibase-data" / "en" / "data.json").read_text()):
        code = emoji["hexcode"].lower().removesuffix("-fe0f")
        name = by_code.get(code) or by_code.get(f"{code}-fe0f")
        if name in tags:
            tags[name] = [tag.lower() for tag in emoji.get("tags", [])]
    words_in_names = {word for name in names for word in name.split("-")}
    tag_counts = Counter(tag for words in tags.values() for tag in set(words))
    usable = {tag for tag, count in tag_counts.items() if count == 1 and tag.isalpha() and tag not in words_in_names}
    return tuple(tuple(tag for tag in tags[name] if tag in usable) for name in names)


def icon_svg(icon_set: dict, name: str, size: int = SPRITE_SIZE) -> str:
    """Return one icon as an SVG document of `size` px. An alias gives its parent's drawing."""
    icon = icon_set["icons"].get(name) or icon_set["icons"][icon_set["aliases"][name]["parent"]]
    width = icon.get("width", icon_set.get("width", 16))
    height = icon.get("height", icon_set.get("height", 16))
    left, top = icon.get("left", 0), icon.get("top", 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{size}" height="{size}">{icon["body"]}</svg>'
    )


def render_svg(svg: str, size: int = SPRITE_SIZE) -> torch.Tensor:
    """Return (4, size, size) uint8, premultiplied: resizing straight alpha would leave white fringes."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    rgba = np.array(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), dtype=np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return torch.from_numpy(rgba.round().astype(np.uint8)).permute(2, 0, 1)


def render_sprites(packages: Path, names: Sequence[str] | None = None, size: int = SPRITE_SIZE) -> Sprites:
    """Render the named concepts in every style at `size` px; by default all that the four packages share.

    Raises:
        ValueError: naming the concepts that a package lacks.
    """
    icons = packages / "@iconify-json"
    common = find_common_concepts(icons)
    names = list(common) if names is None else names
    if unknown := [name for name in names if name not in common]:
        raise ValueError(f"not in all four icon packages: {', '.join(unknown)}")
    concepts = [name.replace("-", " ") for name in names]
    rgba, concept_indices, style_indices, held_out = [], [], [], []
    for style_index, (style, package) in enumerate(PACKAGES.items()):
        icon_set = json.loads((icons / package / "icons.json").read_text())
        for concept_index, name in enumerate(names):
            rgba.append(render_svg(icon_svg(icon_set, name, size), size))
            concept_indices.append(concept_index)
            style_indices.append(style_index)
            held_out.append(is_held_out(concepts[concept_index], style))
    return Sprites(
        rgba=torch.stack(rgba),
        concept=torch.tensor(concept_indices),
        style=torch.tensor(style_indices),
        held_out=torch.tensor(held_out),
        concepts=tuple(concepts),
        categories=tuple(common[name] for name in names),
        synonyms=find_synonyms(packages, names),
    )


def read_concept_list(path: Path) -> list[str]:
    """Return the icon names in a list file without duplicates: separated by white space, `#` starts a comment."""
    lines = (line.partition("#")[0] for line in path.read_text().splitlines())
    return list(dict.fromkeys(word for line in lines for word in line.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="the node_modules folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for sprites.safetensors")
    parser.add_argument("--concepts", type=Path, help="file with a list of icon names; default: all common ones")
    parser.add_argument("--size", type=int, default=SPRITE_SIZE, help="px; the upscaler is trained on 256")
    args = parser.parse_args()
    sprites = render_sprites(args.packages, read_concept_list(args.concepts) if args.concepts else None, args.size)
    sprites.save(args.out)
    print(f"{len(sprites)} sprites of {len(sprites.concepts)} concepts, {int(sprites.held_out.sum())} held out")


if __name__ == "__main__":
    main()
