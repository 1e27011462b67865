"""Train the upscaler: a network that enlarges a picture twofold in one call, on artwork and drawings.

    python -m studio.training.upscaling.train --sprites CACHE/sprites-256 --run CACHE/upscaler --updates 8000

The learning rate falls to zero at the last update. The run saves itself as it goes and when it is terminated; the same
command resumes it. With more updates it goes on from there, at the rate of its new share of the way.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch.nn.utils import convert_conv2d_weight_memory_format

from studio.diffusion.conditioning import CONDITION_CHANNELS, Task, enlarge
from studio.diffusion.unet import StudioUNet
from studio.training.data.sprites import Sprites
from studio.training.evaluation.restoration import psnr
from studio.training.loading import new_unet
from studio.training.optimizer import make_optimizer
from studio.training.upscaling.pairs import FACTOR, PairMaker, Pairs, draw_held_out
from studio.training.upscaling.resampling import resample, shrink_weights, to_levels

NETWORK: dict[str, Any] = {
    "sample_size": 64,
    "window_size": 64,
    "block_out_channels": (64,),
    "layers_per_block": (5,),
    "attention_levels": (False,),
    "mid_layers": 6,
    "cross_attention_dim": 0,
    "time_embedding_dim": 64,
    "normalize": False,
    "low_res_only": True,
}
LAST_TIME = 999.0
WARMUP = 100  # updates
EMA_DECAY = 0.999
MAX_GRADIENT_NORM = 1.0
REPEATED = 0.12  # share of rows whose small picture the network itself enlarged, as for x4
ERROR_FLOOR = 1e-5  # mean square of values in [-1, 1]: below it (56 dB) a loss hardly falls
LOG_EVERY = 100  # updates
VALIDATE_EVERY = 500
VALIDATION_PICTURES = 32


def upscale(unet: StudioUNet, small: torch.Tensor, noise_level: torch.Tensor) -> torch.Tensor:
    """Return x0 (B, 3, 2 h, 2 w) for small pictures (B, 3, h, w) in [-1, 1] with noise of these levels (B,)."""
    count, _, height, width = small.shape
    enlarged = enlarge(small, (FACTOR * height, FACTOR * width))
    others = enlarged.new_zeros(count, CONDITION_CHANNELS, *enlarged.shape[2:])  # x_t, and what it does not read
    task = torch.full((count,), int(Task.SUPER_RESOLUTION), device=small.device)
    sample = torch.cat([others, enlarged], 1)
    return -unet(sample, LAST_TIME, None, None, task, noise_level).sample  # at the last time v = -x0


def row_losses(prediction: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """Return (B,): the logarithm of each row's mean square error, so that PSNR counts, not the hardest rows."""
    return (ERROR_FLOOR + (prediction - picture).square().mean((1, 2, 3))).log()


def validate(unet: StudioUNet, pictures: torch.Tensor, factor: int) -> float:
    """Return the mean PSNR in dB of pictures (N, 3, S, S), shrunk by `factor` (bicubic) and enlarged again."""
    size = pictures.shape[-1]
    weights = shrink_weights("bicubic", size, size // factor)
    result = to_levels(resample(pictures, weights, weights))
    with torch.no_grad():
        while result.shape[-1] < size:
            result = upscale(unet, result, torch.zeros(len(result))).clamp(-1, 1)
    return psnr(to_levels(result), pictures).mean().item()


class UpscalerTrainer:
    """A run in a folder: the network, its averaged weights, the optimizer and the log."""

    def __init__(self, options: argparse.Namespace, network: Mapping[str, Any] = NETWORK) -> None:
        self.options, self.folder = options, Path(options.run)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.folder / "checkpoint.pt"
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True) if self.checkpoint.exists() else {}
        self.updates, self.cpu_seconds = state.get("updates", 0), state.get("cpu_seconds", 0.0)
        torch.manual_seed(options.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if state:
            self.unet = new_unet(self.folder)
            self.unet.load_state_dict(state["model"])
        else:
            self.unet = StudioUNet(**network)
            self.unet.save_config(self.folder / "unet")
        torch.nn.Module.to(self.unet, self.device)
        convert_conv2d_weight_memory_format(self.unet, torch.channels_last)
        self.average = EMAModel(self.unet.parameters(), decay=EMA_DECAY, update_after_step=-1, foreach=True)
        if state:
            self.average.shadow_params = [value.to(self.device) for value in state["average"].values()]
            self.average.optimization_step = self.updates
        self.optimizer = make_optimizer(self.unet, options.learning_rate, "adamw")
        if state:
            self.optimizer.load_state_dict(state["optimizer"])
        sprites = Sprites.load(options.sprites)
        self.pairs = PairMaker(sprites, options.seed + self.updates)  # other pairs after each resumption
        self.validation = draw_held_out(sprites, VALIDATION_PICTURES, 64)
        self.terminated = False

    def learning_rate(self) -> float:
        """Return the rate of the next update: it rises over the warm-up and falls in a line to zero at the end."""
        return self.options.learning_rate * min((self.updates + 1) / WARMUP, 1.0) * self.remaining()

    def remaining(self) -> float:
        """Return the share of the updates that is left."""
        return max(1 - self.updates / self.options.updates, 0.0)

    def train(self) -> None:
        """Train until the last update or until SIGTERM. Save, and export at the end."""
        signal.signal(signal.SIGTERM, self._terminate)
        last_save, losses = time.monotonic(), []
        begin, seconds_before = time.process_time(), self.cpu_seconds
        while self.updates < self.options.updates and not self.terminated:
            losses.append(self.update(self.pairs.make(self.options.batch_size, self.options.size)))
            self.cpu_seconds = seconds_before + time.process_time() - begin
            if self.updates % LOG_EVERY == 0:
                self.log(losses)
                losses = []
            if time.monotonic() - last_save > 60 * self.options.save_every:
                self.save()
                last_save = time.monotonic()
        self.save()
        if self.options.export and not self.terminated:
            export(self.folder, Path(self.options.export))

    def update(self, pairs: Pairs) -> float:
        """Update the weights and their average once. Return the mean loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        picture, small, level = (part.to(self.device) for part in (pairs.picture, pairs.small, pairs.noise_level))
        small = self.repeat(small, picture, level)
        loss = row_losses(upscale(self.unet, small, level), picture).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.unet.parameters())
        self.updates += 1
        return loss.item()

    @torch.no_grad()
    def repeat(self, small: torch.Tensor, picture: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Return the small pictures with some replaced by what the network enlarges from half their size."""
        rows = [row for row in range(len(small)) if not level[row] and self.pairs.rng.random() < REPEATED]
        if rows:
            smaller = torch.stack([self.pairs.shrink(picture[row].cpu(), FACTOR**2) for row in rows]).to(picture)
            small = small.clone()
            small[rows] = to_levels(upscale(self.unet, smaller, level[rows]))
        return small

    def log(self, losses: list[float]) -> None:
        """Print a line of the log and append it to log.jsonl; at times with the PSNR of the averaged weights."""
        line: dict[str, float] = {
            "updates": self.updates,
            "cpu_minutes": round(self.cpu_seconds / 60, 2),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "loss": round(sum(losses) / len(losses), 4),
        }
        if self.updates % VALIDATE_EVERY == 0 or self.updates == self.options.updates:
            self.average.store(self.unet.parameters())
            self.average.copy_to(self.unet.parameters())
            for factor in (2, 4):
                line[f"psnr_x{factor}"] = round(validate(self.unet, self.validation, factor), 3)
            self.average.restore(self.unet.parameters())
        print(json.dumps(line), flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the checkpoint under a temporary name, then rename it, so that a killed run loses nothing."""
        names = [name for name, _ in self.unet.named_parameters()]
        state = {
            "model": self.unet.state_dict(),
            "average": dict(zip(names, self.average.shadow_params, strict=True)),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "cpu_seconds": self.cpu_seconds,
        }
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)

    def _terminate(self, *_: Any) -> None:
        self.terminated = True


def load_averaged(run: Path) -> StudioUNet:
    """Return the upscaler with the averaged weights of a run's last checkpoint."""
    unet = new_unet(run)
    unet.load_state_dict(torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)["average"])
    return unet.eval()


def export(run: Path, folder: Path) -> None:
    """Write the averaged weights of a run in fp16, as the folder of a component."""
    load_averaged(run).half().save_pretrained(folder, safe_serialization=True)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or `arguments` where they are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sprites", required=True, help="folder made by studio.training.data.sprites --size 256")
    parser.add_argument("--run", required=True, help="folder of the run; an existing run is resumed")
    parser.add_argument("--updates", type=int, default=8000, help="in total, over all stretches")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=48, help="side of the pictures in px, a multiple of 8")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="the highest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=3, help="minutes between two checkpoints")
    parser.add_argument("--export", help="component folder to write at the end, such as assets/model/upscaler")
    return parser.parse_args(arguments)


def main() -> None:
    UpscalerTrainer(parse_options()).train()


if __name__ == "__main__":
    main()
