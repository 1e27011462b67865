"""A pipeline that paints coloured blobs: the sampler protocol without a network, for tests."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "white": "#f4f4f2",
    "black": "#222226",
    "red": "#d94a42",
    "green": "#46a060",
    "blue": "#3a78d6",
    "yellow": "#f2c230",
    "pink": "#ec8ca8",
    "purple": "#965cc4",
    "orange": "#ee8a34",
    "gray": "#9b9b98",
}
CONCEPTS = {
    "Food & Drink": """
        apple avocado banana bacon bread burrito candy carrot cheese cherries coconut cookie
        croissant doughnut egg grapes hamburger hot_dog ice_cream lemon melon mushroom pancakes
        peach pear pineapple pizza popcorn pretzel strawberry sushi taco tomato watermelon
    """,
    "Animals & Nature": """
        bear bee bird butterfly cactus camel cat chicken cow crab dog dolphin duck elephant fish
        fox frog giraffe hedgehog horse koala ladybug lion monkey mouse octopus owl panda
        penguin pig rabbit rose shark snail sunflower tiger tree tulip turtle whale
    """,
    "Travel & Places": """
        airplane ambulance bicycle boat bridge bus candle house lighthouse mountain post_office
        rocket sailboat taxi tent tractor train volcano
    """,
    "Objects": """
        balloon bell boots book camera clock crown diamond drum eraser gift guitar hammer key
        lamp magnet mirror_ball pencil phone pushpin robot scissors shell shoe trophy trumpet
        umbrella violin
    """,
    "Smileys & Emotion": """
        angry_face crying_face ghost grinning_face heart kiss_mark skull sleeping_face
        winking_face
    """,
}


@dataclass
class FakeRow:
    seed: int
    num_steps: int
    noise: np.ndarray  # (3, H, W)
    target: np.ndarray  # (3, H, W) in [-1, 1]
    step: int = 0
    sample: np.ndarray | None = None
    pred_original_sample: np.ndarray | None = None

    @property
    def finished(self) -> bool:
        return self.step >= self.num_steps


@dataclass
class FakePipeline:
    """Obeys the sampler protocol; each network call takes `delay` seconds."""

    delay: float = 0.0
    sample_size: int = 64
    limit: int = 300  # characters it reads
    device: str = "cpu"
    calls: list[int] = field(default_factory=list)  # rows in each network call

    def prepare(
        self,
        prompts,
        negative_prompts=None,
        num_inference_steps=15,
        guidance_scale=3.0,
        *,
        seeds,
        sampler="studio",
    ):
        rows = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            noise = np.random.default_rng(seed).standard_normal((3, self.sample_size, self.sample_size))
            rows.append(FakeRow(seed, num_inference_steps, noise, blob(prompt, seed, self.sample_size), sample=noise))
        return rows

    def denoise_step(self, rows) -> None:
        time.sleep(self.delay)
        self.calls.append(len(rows))
        for row in rows:
            row.step += 1
            clean = row.step / row.num_steps
            smooth = row.noise * (1 - clean) * 0.6
            row.pred_original_sample = np.clip(clean * row.target + (1 - clean) * row.target.mean() + smooth, -1, 1)

    def decode(self, row) -> Image.Image:
        return Image.fromarray(((row.target + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0))

    def truncated(self, prompt: str) -> str:
        return prompt[self.limit :]


def blob(prompt: str, seed: int, size: int) -> np.ndarray:
    """A shape with a shine, in the first colour of the prompt, on the colour before "background"."""
    words = prompt.lower().replace(",", " ").split()
    named = [word for word in words if word in COLOURS]
    ground = words[words.index("background") - 1] if "background" in words[1:] else "white"
    draw_on = Image.new("RGB", (size * 4, size * 4), COLOURS.get(ground, "#f4f4f2"))
    draw, unit = ImageDraw.Draw(draw_on), size * 4 / 64
    generator = np.random.default_rng([seed, sum(map(ord, prompt))])
    colour = COLOURS[named[0]] if named else list(COLOURS.values())[2 + int(generator.integers(7))]
    x, y, r = (32 + generator.integers(-4, 5)) * unit, (34 + generator.integers(-4, 5)) * unit, 20 * unit
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    draw.ellipse((x - 0.7 * r, y - 0.75 * r, x - 0.1 * r, y - 0.3 * r), fill="#ffffff")
    draw.rectangle((x - unit, y - 1.4 * r, x + unit, y - 0.8 * r), fill="#5b4030")
    small = draw_on.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1


def write_model_folder(folder: Path, *, thumbnails: bool = True) -> Path:
    """What the page reads of a model folder without loading it: card, vocabulary, thumbnails, sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("# Blob 64\n", "utf-8")
    (folder / "unet").mkdir(exist_ok=True)
    (folder / "unet" / "config.json").write_text('{"sample_size": 64}', "utf-8")
    things = [(name.replace("_", " "), group) for group, names in CONCEPTS.items() for name in names.split()]
    vocabulary = {
        "concepts": [{"name": name, "category": group} for name, group in things],
        "styles": ["noto", "twemoji", "flat", "glossy"],
        "grounds": list(COLOURS),
    }
    vocabulary["concepts"][0]["synonyms"] = ["fruit"]
    if thumbnails:
        sheet = Image.new("RGB", (32 * 16, 32 * -(-len(things) // 16)), "white")
        for index, (name, _) in enumerate(things):
            values = (blob(name, index, 32) + 1) * 127.5
            tile = Image.fromarray(values.round().astype(np.uint8).transpose(1, 2, 0))
            sheet.paste(tile, (32 * (index % 16), 32 * (index // 16)))
        sheet.save(folder / "thumbnails.png")
        vocabulary["thumbnails"] = {"file": "thumbnails.png", "tile": 32}
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary), "utf-8")
    return folder
