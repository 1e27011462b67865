"""Options and presets of the training program."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A named budget. Batches are per process; sizes are in px."""

    concepts: str  # the list of concepts to render sprites of
    size: int  # of pictures in text-to-image and inpainting batches
    batch_size: int
    crop_size: int  # of pictures in super-resolution batches
    crop_batch_size: int
    super_resolution_every: int  # updates from one of super-resolution to the next
    learning_rate: float  # the highest
    warmup: int  # updates
    decay: float  # last share of the time, over which the learning rate falls to zero
    ema_decay: float
    placement_variation: float  # of single objects, 0 to 1: a low one lets their look be learned sooner
    unet: dict[str, Any] = field(default_factory=dict)  # config values other than the network's defaults


PRESETS = {
    "cpu": Preset(
        concepts="concepts.txt",
        size=32,
        batch_size=24,
        crop_size=64,
        crop_batch_size=8,
        super_resolution_every=8,
        learning_rate=5e-4,
        warmup=100,
        decay=0.5,
        ema_decay=0.998,
        placement_variation=0.4,
    ),
    "gpu": Preset(
        concepts="all",
        size=64,
        batch_size=512,
        crop_size=64,
        crop_batch_size=512,
        super_resolution_every=5,
        learning_rate=1e-3,
        warmup=500,
        decay=0.4,
        ema_decay=0.9995,
        placement_variation=1.0,
    ),
}


@dataclass(frozen=True)
class TrainingOptions:
    """The command line of the training program; see `parse_options` for their meaning."""

    sprites: str
    run: str
    preset: str
    minutes: float
    stretch: float
    init: str | None
    guided: bool
    text_encoder: str | None
    text_minutes: float
    precision: str
    optimizer: str
    learning_rate: float | None
    seed: int
    log_every: float
    save_every: float
    samples_every: float
    export: str | None

    @property
    def source(self) -> str | None:
        """Pipeline folder of the text encoder to begin with."""
        return self.init or self.text_encoder


def parse_options(arguments: Sequence[str] | None = None, description: str | None = None) -> TrainingOptions:
    """Parse the command line, or `arguments` where they are given. Exit with a message where they are invalid."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sprites", required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--run", required=True, help="folder of the run; an existing run is resumed")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="budget: batches, sizes, learning rate")
    parser.add_argument("--minutes", type=float, default=90, help="of training in total, over all stretches")
    parser.add_argument("--stretch", type=float, default=math.inf, help="stop after this many minutes; resume later")
    parser.add_argument("--init", help="start from the weights of this pipeline folder")
    parser.add_argument("--guided", action="store_true", help="train only one-pass guidance, for the weights of --init")
    parser.add_argument("--text-encoder", help="take the text encoder of this pipeline folder; the U-Net starts anew")
    parser.add_argument(
        "--text-minutes", type=float, default=0, help="train the text encoder first for so long; a new one takes 4"
    )
    parser.add_argument("--precision", choices=("auto", "no", "bf16"), default="auto", help="auto: bf16 where fast")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--learning-rate", type=float, help="the highest; default: the preset's. Lower it after --init")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=float, default=30, help="seconds")
    parser.add_argument("--save-every", type=float, default=4, help="minutes between two checkpoints")
    parser.add_argument("--samples-every", "--sheet-every", type=float, default=12, help="minutes between two samples")
    parser.add_argument("--export", help="model folder to write at the end, such as assets/model")
    options = TrainingOptions(**vars(parser.parse_args(arguments)))
    if options.guided and (not options.init or options.text_minutes):
        parser.error("--guided needs --init, the weights to train guidance for, and does not go with --text-minutes")
    return options
