"""Full-size models as headers alone: names and shapes from configs on the meta device, files without data."""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from studio.models import configs
from studio.models.components import COMPONENTS, build
from studio.models.formats import DTYPE_BITS
from tests.models.ldm import file_weights

Shapes = Mapping[str, tuple[int, ...]]
CONFIGS = {
    "sd1": ("stable-diffusion", configs.SD1),
    "sd2": ("stable-diffusion", configs.SD2),
    "sdxl": ("sdxl", configs.SDXL),
    "refiner": ("sdxl-refiner", configs.SDXL_REFINER),
    "x4": ("upscaler-x4", configs.X4),
}
CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"


@functools.cache
def modules(kind: str) -> SimpleNamespace:
    """Return the networks of a published model, without weights."""
    family, chosen = CONFIGS[kind]
    parts = {
        name: build(name, classes[0], chosen[name], 10_000)
        for name, classes in COMPONENTS[family].items()
        if classes and "tokenizer" not in name
    }
    return SimpleNamespace(**parts)


@functools.cache
def layout(kind: str) -> Shapes:
    """Return the names and shapes of a published model's single file."""
    return {name: tuple(weight.shape) for name, weight in file_weights(modules(kind)).items()}


def with_channels(shapes: Shapes, channels: int) -> Shapes:
    """Return a layout whose U-Net has another number of input channels."""
    return {**shapes, CONV_IN: (320, channels, 3, 3)}


def write_header(path: Path, shapes: Shapes, *, dtype: str = "F16", metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file whose data are a hole: it takes no space on the disk."""
    entries: dict = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * DTYPE_BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + end)
    return path
