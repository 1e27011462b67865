"""Train text to image, inpainting and super-resolution in one run, on CPUs or GPUs, in one process or several.

    accelerate launch -m studio.training.train --sprites CACHE/sprites --run CACHE/run --preset cpu --minutes 90

The learning rate falls to zero as `--minutes` run out. The run saves itself as it goes; the same command resumes it,
in as many stretches (`--stretch`) as needed. With `--guided`, adapters learn guidance in one pass for the weights of
`--init`, which stay unchanged. See README.md beside this file.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch.nn.utils import convert_conv2d_weight_memory_format

from studio.diffusion.conditioning import Task
from studio.diffusion.noise_process import NoiseSchedule
from studio.training.data.batches import GENERATION_SHARES, SUPER_RESOLUTION_SHARES, Batch, BatchMaker
from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import SceneMaker, SceneMix
from studio.training.data.sprites import Sprites
from studio.training.export import export, generate, image_grid, load_averaged, sample_prompts
from studio.training.loading import make_scheduler
from studio.training.networks import build_networks, find_new_concepts
from studio.training.objective import guidance_loss, velocity_loss
from studio.training.optimizer import make_optimizer
from studio.training.options import PRESETS, TrainingOptions, parse_options
from studio.training.precision import has_fast_bf16

TRAINING_MIX = SceneMix(tinted=0.07)  # fewer tints than in the evaluation: concepts are learned in their own colours
MAX_GRADIENT_NORM = 1.0
NOISE_BINS = 4  # the log has losses by this many equal parts of the time axis
SAMPLES, SAMPLE_COLUMNS = 48, 8


class Trainer:
    """A training run in a folder: its networks, optimizer, averaged weights, log and time spent."""

    def __init__(self, options: TrainingOptions) -> None:
        self.options, self.folder = options, Path(options.run)
        self.preset = PRESETS[options.preset]
        if options.learning_rate:
            self.preset = replace(self.preset, learning_rate=options.learning_rate)
        self.accelerator = _make_accelerator(options.precision)
        device = self.accelerator.device
        self.sprites = Sprites.load(options.sprites)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.folder / "checkpoint.pt"
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True) if self.checkpoint.exists() else {}
        self.updates, self.seconds, self.pictures = (state.get(k, 0) for k in ("updates", "seconds", "pictures"))

        # other scenes and other noise for each process, and after each resumption
        seed = options.seed + 1009 * self.accelerator.process_index + self.updates
        self.generator = torch.Generator().manual_seed(seed)
        self.scenes = SceneMaker(
            self.sprites,
            seed,
            placement_variation=self.preset.placement_variation,
            mix=TRAINING_MIX,
            oversampled=find_new_concepts(Path(options.init), self.sprites) if options.init else (),
        )
        self.batches = BatchMaker(
            self.scenes,
            SceneRenderer(self.sprites, device),
            seed,
            caption_dropout=0.0 if options.guided else 0.1,  # without a caption there is nothing to guide by
        )
        self.schedule: NoiseSchedule = make_scheduler().schedule

        self.tokenizer, self.model = build_networks(options, self.preset, state, self.scenes, self.accelerator)
        # from update n on, the decay is min(ema_decay, (1 + n) / (10 + n)): a young average follows closely
        self.average = EMAModel(
            self.model.parameters(), decay=self.preset.ema_decay, update_after_step=-1, foreach=True
        )
        if state:
            self.average.shadow_params = list(state["average"].values())
            self.average.optimization_step = self.updates
        convert_conv2d_weight_memory_format(self.model.to(device), torch.channels_last)
        self.average.to(device)
        optimizer = make_optimizer(self.model, self.preset.learning_rate, options.optimizer)
        if state:
            optimizer.load_state_dict(state["optimizer"])
        self.prepared_model, self.optimizer = self.accelerator.prepare(self.model, optimizer)

    def train(self) -> None:
        """Train until the time is spent, or this stretch of it. Save, write samples, and export at the end."""
        options, total = self.options, 60 * self.options.minutes
        start, seconds_before = time.monotonic(), self.seconds
        last_save = last_log = last_samples = start
        losses, pictures_before = LossSums(), self.pictures
        while self.seconds < total and self.seconds - seconds_before < 60 * options.stretch:
            batch = self.next_batch()
            row_losses, times = self.update(batch, progress=self.seconds / total)
            losses.add(batch.task, times / len(self.schedule), row_losses)
            now = time.monotonic()
            self.seconds = self._share_clock(seconds_before + now - start)
            if now - last_log >= options.log_every:
                self.log(losses, (self.pictures - pictures_before) / (now - last_log))
                losses, pictures_before, last_log = LossSums(), self.pictures, now
            if now - last_save >= 60 * options.save_every:
                self.save()
                last_save = now
                if now - last_samples >= 60 * options.samples_every:
                    self.write_samples()
                    last_samples = now
        self.save()
        self.write_samples()
        if options.export and self.seconds >= total and self.accelerator.is_main_process:
            export(load_averaged(self.folder), self.sprites, Path(options.export))

    def next_batch(self) -> Batch:
        """Return the batch of the next update."""
        preset = self.preset
        if self.options.guided:
            return self.batches.make(preset.batch_size, preset.size, {Task.TEXT_TO_IMAGE: 1.0})
        if (self.updates + 1) % preset.super_resolution_every == 0:
            return self.batches.make(preset.crop_batch_size, preset.crop_size, SUPER_RESOLUTION_SHARES)
        return self.batches.make(preset.batch_size, preset.size, GENERATION_SHARES)

    def update(self, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Update the weights and their average once. Return the losses (B,) and the times (B,).

        progress: share of the time that is spent, for the learning rate.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress)
        with self.accelerator.autocast():
            row_losses, times = self.loss(batch)
        self.accelerator.backward(row_losses.mean())
        self.accelerator.clip_grad_norm_(self.prepared_model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.model.parameters())
        self.updates += 1
        self.pictures += len(batch.picture) * self.accelerator.num_processes
        return row_losses.detach(), times

    def loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses (B,) and the times (B,) of a batch."""
        tokens = self.tokenize(batch.captions)
        text = self.model.encode_text(tokens)
        if not self.options.guided:
            return velocity_loss(self.prepared_model, batch, text, self.schedule, self.generator)
        empty_text = self.model.encode_text(self.tokenize([""], length=tokens["input_ids"].shape[1]))
        return guidance_loss(
            self.prepared_model,
            self.model,  # without a guidance scale the adapters add nothing: these are the weights of --init
            batch,
            text,
            empty_text,
            schedule=self.schedule,
            generator=self.generator,
        )

    def learning_rate(self, progress: float) -> float:
        """Return the learning rate of the next update: it rises over the warm-up and falls to zero at the end."""
        rise = min(1.0, (self.updates + 1) / self.preset.warmup)
        fall = min(1.0, (1 - progress) / self.preset.decay)
        return self.preset.learning_rate * rise * max(fall, 0.0)

    def tokenize(self, captions: list[str], length: int | None = None) -> dict[str, torch.Tensor]:
        """Return tokens and mask (B, L), padded to `length` or to the longest caption."""
        tokens = self.tokenizer(
            captions,
            truncation=True,
            max_length=length,
            padding="longest" if length is None else "max_length",
            pad_to_multiple_of=8 if length is None else None,
            return_tensors="pt",
        )
        return {name: tokens[name].to(self.accelerator.device) for name in ("input_ids", "attention_mask")}

    def save(self) -> None:
        """Write the checkpoint under a temporary name, then rename it, so that a killed run loses nothing."""
        if not self.accelerator.is_main_process:
            return
        names = [name for name, _ in self.model.named_parameters()]
        state = {
            "model": self.model.state_dict(),
            "average": dict(zip(names, self.average.shadow_params, strict=True)),
            "optimizer": self.optimizer.optimizer.state_dict(),  # without accelerate's wrapper
            "updates": self.updates,
            "seconds": self.seconds,
            "pictures": self.pictures,
        }
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)

    def write_samples(self) -> None:
        """Write a grid of pictures by the averaged weights of the last checkpoint."""
        if not self.accelerator.is_main_process:
            return
        pipe = load_averaged(self.folder)
        pictures = generate(pipe, sample_prompts(self.sprites, SAMPLES), one_pass=self.options.guided)
        image_grid(pictures, SAMPLE_COLUMNS).save(self.folder / f"samples-{self.seconds / 60:04.0f}.png")

    def log(self, losses: LossSums, pictures_per_second: float) -> None:
        """Print a line of the log and append it to log.jsonl."""
        if not self.accelerator.is_main_process:
            return
        line = {
            "updates": self.updates,
            "pictures": self.pictures,
            "minutes": round(self.seconds / 60, 2),
            "pictures_per_second": round(pictures_per_second, 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **losses.means(),
        }
        print(json.dumps(line), flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _share_clock(self, seconds: float) -> float:
        """Return the main process's seconds, so that all processes stop after the same update."""
        shared = torch.tensor([seconds], dtype=torch.float64, device=self.accelerator.device)
        return broadcast(shared).item()


class LossSums:
    """Sums of losses since the last line of the log, by task and by noise level."""

    def __init__(self) -> None:
        self.sums, self.counts = (torch.zeros(len(Task) + NOISE_BINS, dtype=torch.float64) for _ in range(2))

    def add(self, task: torch.Tensor, time_share: torch.Tensor, losses: torch.Tensor) -> None:
        """Add losses (B,) of tasks (B,) at times (B,), as shares of the schedule in [0, 1)."""
        losses = losses.double().cpu()
        for bins in (task, len(Task) + (time_share * NOISE_BINS).long()):
            self.sums.index_add_(0, bins.cpu(), losses)
            self.counts.index_add_(0, bins.cpu(), torch.ones_like(losses))

    def means(self) -> dict[str, dict[str, float] | list[float]]:
        """Return the mean losses as the log has them; tasks without rows are left out."""
        means = [round(mean, 5) for mean in (self.sums / self.counts).tolist()]
        by_task = {task.name.lower(): means[task] for task in Task if not math.isnan(means[task])}
        return {"loss": by_task, "loss_by_noise": means[len(Task) :]}


def _make_accelerator(precision: str) -> Accelerator:
    has_gpu = torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if has_fast_bf16("cuda" if has_gpu else "cpu") else "no"
    torch.backends.cuda.matmul.allow_tf32 = True
    return Accelerator(mixed_precision=precision, cpu=not has_gpu)


def main() -> None:
    trainer = Trainer(parse_options(description=__doc__))
    trainer.accelerator.print(json.dumps({"preset": trainer.options.preset, **asdict(trainer.preset)}))
    trainer.train()


if __name__ == "__main__":
    main()
