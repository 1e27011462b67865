"""The training program: text to image, inpainting and super-resolution in one run, on whatever machine is at hand.

    accelerate launch -m studio.training.train --sprites CACHE/sprites --run CACHE/run --preset cpu --minutes 90

Time-boxed: the learning rate falls to zero as `--minutes` run out. The run saves itself as it goes; the same command
takes it up again, in as many stretches (`--stretch`) as the machine allows. With `--guided` the weights of `--init`
learn guidance as an input, and nothing else of them changes. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from studio.diffusion.conditioning import Task
from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE, apply_guidance
from studio.diffusion.noise_process import NoiseSchedule, velocity
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.diffusion.unet import StudioUNet
from studio.training.data.batches import PAINTING, SHARPENING, Batch, BatchMaker
from studio.training.data.scenes import Mix, Painter, SceneMaker
from studio.training.data.sprites import Sprites
from studio.training.data.text import new_text_encoder, teach_reading, train_tokenizer
from studio.training.export import export, load_averaged, paint, sample_prompts, sheet
from studio.training.optimizer import make_optimizer
from studio.training.precision import fast_bf16

GUIDANCE_RANK = 32  # of the adapters that are taught guidance as an input
MIX = Mix(tinted=0.07)  # fewer than the judges see: the network learns what a thing looks like in its own colours
NOISE_BINS = 4  # losses are logged apart for this many equal parts of the time axis


@dataclass(frozen=True)
class Preset:
    """A named budget. Batches are per process; sides are in px."""

    concepts: str  # the list that the sprites are to be made from
    size: int  # side at which text becomes a picture, and holes are filled
    batch: int
    window: int  # side of super-resolution's windows
    window_batch: int
    window_every: int  # every so-manieth update is one of super-resolution
    learning_rate: float
    warmup: int  # updates
    decay: float  # share of the time over which the learning rate falls to zero
    ema: float
    freedom: float  # of a thing's place and size: with less, what it looks like is learned sooner
    unet: dict = field(default_factory=dict)  # what differs from the network's defaults


PRESETS = {
    "cpu": Preset("concepts.txt", 32, 24, 64, 8, 8, 5e-4, 100, 0.5, 0.998, 0.4),
    "gpu": Preset("all", 64, 512, 64, 512, 5, 1e-3, 500, 0.4, 0.9995, 1.0),
}


Words = tuple[torch.Tensor, torch.Tensor]  # (B, L, D), and (B, L) of what of it counts


class Model(nn.Module):
    """The network, and the text encoder that it reads with: noisy pictures and words in, prediction out."""

    def __init__(self, unet: StudioUNet, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    @torch.no_grad()
    def read(self, tokens: dict[str, torch.Tensor]) -> Words:
        """Of tokens (B, L)."""
        return self.text_encoder(**tokens).last_hidden_state, tokens["attention_mask"]

    def forward(self, x_t, condition, time, text, mask, task, noise_level, guidance=None) -> torch.Tensor:
        sample = torch.cat([x_t, condition], dim=1)
        return self.unet(sample, time, text, mask, task, noise_level, guidance).sample


def draw_times(count: int, generator: torch.Generator, last: int) -> torch.Tensor:
    """(count,) real times in [0, last]: logit-normal (arXiv 2403.03206, section 3.1), a tenth of them uniform."""
    normal = torch.sigmoid(1.1 * torch.randn(count, generator=generator) + 0.2)
    uniform = torch.rand(count, generator=generator)
    return last * torch.where(torch.rand(count, generator=generator) < 0.1, uniform, normal)


def losses(
    model: nn.Module,
    batch: Batch,
    words: Words,
    silence: Words,
    schedule: NoiseSchedule,
    generator: torch.Generator,
    teacher: nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean squared error of the velocity for each row (B,), and the times (B,) at which it was asked.

    With a teacher, the velocity is not the picture's but a guided one, to be said in one call: what the teacher says
    with words and without, put together for a random scale (Meng et al. 2022, arXiv 2210.03142, section 3.1).
    words: of the batch's captions; silence: of "", one row.
    """
    device, count = batch.picture.device, len(batch.picture)
    time = draw_times(count, generator, len(schedule) - 1).to(device)
    eps = torch.randn(batch.picture.shape, generator=generator).to(device)
    alpha, sigma = (part[:, None, None, None] for part in schedule.alpha_sigma(time))
    x_t = alpha * batch.picture + sigma * eps
    seen, rest = (x_t, batch.condition, time), (batch.task, batch.noise_level)
    if teacher is None:
        target, guidance = velocity(batch.picture, eps, alpha, sigma), None
    else:
        guidance = 1 + (MAX_ONE_PASS_GUIDANCE - 1) * torch.rand(count, generator=generator).to(device)
        without = (part.expand(count, *part.shape[1:]) for part in silence)
        with torch.no_grad():
            conditional, unconditional = (teacher(*seen, *read, *rest).float() for read in (words, without))
        target = apply_guidance(unconditional, conditional, guidance[:, None, None, None])
    error = (model(*seen, *words, *rest, guidance).float() - target).square()
    return error.mean(dim=(1, 2, 3)), time


def known_concepts(model: Path, sprites: Sprites) -> list[int]:
    """Those of the sprites' concepts that a model folder's vocabulary names; none where it has no vocabulary."""
    path = model / "vocabulary.json"
    names = {entry["name"] for entry in json.loads(path.read_text())["concepts"]} if path.exists() else set()
    return [number for number, name in enumerate(sprites.concepts) if name in names]


def new_concepts(model: Path, sprites: Sprites) -> set[int]:
    """The others: a model that is trained further is shown them more often than what it can draw."""
    return set(range(len(sprites.concepts))) - set(known_concepts(model, sprites))


class Average:
    """Exponential moving average of a model's parameters, in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = [p.detach().clone().float() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))  # young averages follow closely
        torch._foreach_lerp_(self.values, [p.detach().float() for p in model.parameters()], 1 - keep)

    @torch.no_grad()
    def write_to(self, model: nn.Module) -> None:
        for parameter, value in zip(model.parameters(), self.values, strict=True):
            parameter.copy_(value)


class Run:
    """A training run in a folder: its state, its log, and what it has spent of its time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.run)
        self.preset = PRESETS[args.preset]
        if args.learning_rate:
            self.preset = replace(self.preset, learning_rate=args.learning_rate)
        precision = args.precision
        if precision == "auto":
            precision = "bf16" if fast_bf16("cuda" if torch.cuda.is_available() else "cpu") else "no"
        self.accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
        torch.backends.cuda.matmul.allow_tf32 = True
        self.sprites = Sprites.load(args.sprites)
        rank = self.accelerator.process_index
        self.seed = args.seed + 1009 * rank
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.folder / "checkpoint.pt"
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True) if self.checkpoint.exists() else {}
        self.updates, self.seconds, self.pictures = (state.get(k, 0) for k in ("updates", "seconds", "pictures"))
        # a run taken up again goes on with other scenes and other noise
        begun = self.seed + self.updates
        new = new_concepts(Path(args.init), self.sprites) if args.init else ()
        self.scenes = SceneMaker(self.sprites, begun, freedom=self.preset.freedom, mix=MIX, favoured=new)
        silent = {"text_dropout": 0.0} if args.guided else {}  # without words there is nothing to guide by
        painter = Painter(self.sprites, self.accelerator.device)
        self.batches = BatchMaker(self.scenes, painter, begun, **silent)
        self.generator = torch.Generator().manual_seed(begun)
        self.model = self._model(state)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.average = Average(self.model, self.preset.ema)
        if state:
            self.average.values = list(state["average"].values())
            self.average.updates = self.updates
        self.model.to(self.accelerator.device, memory_format=torch.channels_last)
        self.average.values = [value.to(self.accelerator.device) for value in self.average.values]
        self.optimizer = make_optimizer(self.model, self.preset.learning_rate, args.optimizer)
        if state:
            self.optimizer.load_state_dict(state["optimizer"])
        self.trained, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        self.schedule: NoiseSchedule = StudioScheduler.from_config(STUDIO_CONFIG).schedule

    def _model(self, state: dict) -> Model:
        torch.manual_seed(self.args.seed)
        reads = self.args.init or self.args.text_encoder
        init = self.folder if (self.folder / "tokenizer").exists() else reads
        if init:
            self.tokenizer = CLIPTokenizer.from_pretrained(Path(init) / "tokenizer")
        else:
            makers = SceneMaker(self.sprites, self.args.seed)
            self.tokenizer = train_tokenizer(makers.draw().caption for _ in range(50_000))
        self.accelerator.wait_for_everyone()  # else another might find half of what is written here
        if self.accelerator.is_main_process:
            self.tokenizer.save_pretrained(self.folder / "tokenizer")
        if state:
            unet = StudioUNet.from_config(StudioUNet.load_config(self.folder, subfolder="unet"))
            if bool(unet.config.guidance_rank) != self.args.guided:
                does = "teaches" if unet.config.guidance_rank else "does not teach"
                raise ValueError(f"{self.folder} holds a run that {does} guidance: --guided is to be as it was then")
        elif self.args.init:
            before = StudioUNet.from_pretrained(self.args.init, subfolder="unet", dtype=torch.float32)
            # what was taught of guidance is wrong as soon as the rest is trained further
            rank = (before.config.guidance_rank or GUIDANCE_RANK) if self.args.guided else 0
            known = signature(StudioUNet).parameters  # configs may hold what older networks had
            shape = {key: value for key, value in before.config.items() if key in known}
            unet = StudioUNet(**shape | {"guidance_rank": rank})
            unet.load_state_dict(before.state_dict(), strict=False)
        else:
            unet = StudioUNet(**{"sample_size": self.preset.size} | self.preset.unet)
        if reads and not state:
            text_encoder = CLIPTextModel.from_pretrained(reads, subfolder="text_encoder", dtype=torch.float32)
        else:
            text_encoder = new_text_encoder(self.tokenizer)
        if not state and (self.args.text_minutes or not reads):
            text_encoder.to(self.accelerator.device)
            bf16 = self.accelerator.mixed_precision == "bf16"
            known = known_concepts(Path(reads), self.sprites) if reads else ()
            minutes = self.args.text_minutes or 4
            loss = teach_reading(text_encoder, self.tokenizer, self.scenes, minutes, bf16=bf16, known=known)
            self.accelerator.print(json.dumps({"text_encoder_loss": round(loss, 4)}), flush=True)
        text_encoder.requires_grad_(False)  # it can read: only the U-Net has something left to learn
        if self.accelerator.is_main_process:
            unet.save_config(self.folder / "unet")
            text_encoder.config.save_pretrained(self.folder / "text_encoder")
        model = Model(unet.float(), text_encoder.float())
        if state:
            model.load_state_dict(state["model"])
        model.text_encoder.eval()
        model.unet.train()
        if self.args.guided:
            model.unet.requires_grad_(False)
            for parameter in model.unet.guidance_parameters().values():
                parameter.requires_grad_(True)
        return model

    def save(self) -> None:
        """Write the run's state to a temporary name, then rename it: a run killed here loses nothing."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "model": self.model.state_dict(),
            "average": dict(zip(self.names, self.average.values, strict=True)),
            "optimizer": self.optimizer.optimizer.state_dict(),
            "updates": self.updates,
            "seconds": self.seconds,
            "pictures": self.pictures,
        }
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)

    def write_sheet(self) -> None:
        """Pictures of 48 prompts by the averaged weights as last saved."""
        if not self.accelerator.is_main_process:
            return
        pipe = load_averaged(self.folder)
        pictures = paint(pipe, sample_prompts(self.sprites, 48), one_pass=self.args.guided)
        sheet(pictures, 8).save(self.folder / f"sheet-{self.seconds / 60:04.0f}.png")

    def learning_rate(self, spent: float) -> float:
        """At `spent`, the share of the time that is over."""
        rise = min(1.0, (self.updates + 1) / self.preset.warmup)
        fall = min(1.0, (1 - spent) / self.preset.decay)
        return self.preset.learning_rate * rise * max(fall, 0.0)

    def next_batch(self) -> Batch:
        preset = self.preset
        if self.args.guided:
            return self.batches(preset.batch, preset.size, {Task.TEXT_TO_IMAGE: 1.0})
        if (self.updates + 1) % preset.window_every == 0:
            return self.batches(preset.window_batch, preset.window, SHARPENING)
        return self.batches(preset.batch, preset.size, PAINTING)

    def tokens(self, captions: list[str], length: int | None = None) -> dict[str, torch.Tensor]:
        """Padded to the longest caption, or to a length."""
        padding = {"padding": True, "pad_to_multiple_of": 8} if length is None else {"padding": "max_length"}
        words = self.tokenizer(captions, truncation=True, max_length=length, return_tensors="pt", **padding)
        return {name: words[name].to(self.accelerator.device) for name in ("input_ids", "attention_mask")}

    def train(self) -> None:
        """Train until the time is spent, or this stretch of it."""
        accelerator, budget = self.accelerator, 60 * self.args.minutes
        began, before = time.monotonic(), self.seconds
        saved = logged = sheeted = began
        sums = torch.zeros(2, len(Task) + NOISE_BINS, dtype=torch.float64)  # losses and counts, by task, by noise
        done_before = self.pictures
        teacher = self.model if self.args.guided else None  # without guidance it stays what it was
        while self.seconds < budget and self.seconds - before < 60 * self.args.stretch:
            spent = self.seconds / budget
            batch = self.next_batch()
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(spent)
            with accelerator.autocast():
                tokens = self.tokens(batch.captions)
                silence = self.tokens([""], length=tokens["input_ids"].shape[1])
                words, nothing = self.model.read(tokens), self.model.read(silence)
                rows, times = losses(self.trained, batch, words, nothing, self.schedule, self.generator, teacher)
            accelerator.backward(rows.mean())
            accelerator.clip_grad_norm_(self.trained.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.average.update(self.model)
            self.updates += 1
            self.pictures += len(batch.picture) * accelerator.num_processes
            bins = len(Task) + (times / len(self.schedule) * NOISE_BINS).long()
            for place in (batch.task, bins):
                values = torch.stack([rows.detach(), torch.ones_like(rows)]).double().cpu()
                sums.index_add_(1, place.cpu(), values)
            now = time.monotonic()
            self.seconds = self._agreed(before + now - began)
            if now - logged >= self.args.log_every:
                self.log(sums, (self.pictures - done_before) / (now - logged))
                sums.zero_()
                logged, done_before = now, self.pictures
            if now - saved >= 60 * self.args.save_every:
                self.save()
                saved = now
                if now - sheeted >= 60 * self.args.sheet_every:
                    self.write_sheet()
                    sheeted = now
        self.save()
        self.write_sheet()
        if self.args.export and self.seconds >= budget and accelerator.is_main_process:
            export(load_averaged(self.folder), self.sprites, Path(self.args.export))

    def _agreed(self, seconds: float) -> float:
        """The main process's clock: all stop after the same update, and take the same steps until then."""
        told = torch.tensor([seconds], dtype=torch.float64, device=self.accelerator.device)
        return broadcast(told).item()

    def log(self, sums: torch.Tensor, speed: float) -> None:
        if not self.accelerator.is_main_process:
            return
        mean = (sums[0] / sums[1]).tolist()
        line = {
            "updates": self.updates,
            "pictures": self.pictures,
            "minutes": round(self.seconds / 60, 2),
            "pictures_per_second": round(speed, 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "loss": {task.name.lower(): round(mean[task], 5) for task in Task if not math.isnan(mean[task])},
            "loss_by_noise": [round(value, 5) for value in mean[len(Task) :]],
        }
        print(json.dumps(line), flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """From the command line, unless others are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sprites", required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--run", required=True, help="folder of the run; an existing run is taken up again")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="budget: batch, sizes, rates")
    parser.add_argument("--minutes", type=float, default=90, help="of training in all, over all stretches")
    parser.add_argument("--stretch", type=float, default=math.inf, help="minutes of this stretch")
    parser.add_argument("--init", help="begin from the weights of this pipeline folder")
    parser.add_argument("--guided", action="store_true", help="teach --init's weights guidance in one pass, no more")
    parser.add_argument("--text-encoder", help="read as this pipeline folder does; the rest begins from nothing")
    parser.add_argument("--text-minutes", type=float, default=0, help="of the text encoder alone; a new one takes 4")
    parser.add_argument("--precision", choices=("auto", "no", "bf16"), default="auto", help="auto: bf16 where fast")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--learning-rate", type=float, help="the highest; default: the preset's. Less after --init")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=float, default=30, help="seconds")
    parser.add_argument("--save-every", type=float, default=4, help="minutes")
    parser.add_argument("--sheet-every", type=float, default=12, help="minutes; a sheet of samples in the run's folder")
    parser.add_argument("--export", help="model folder to write when the time is spent, such as assets/model")
    args = parser.parse_args(given)
    if args.guided and (not args.init or args.text_minutes):
        parser.error("--guided needs --init, the weights to teach, and no --text-minutes: they stay as they are")
    return args


def main() -> None:
    run = Run(arguments())
    run.accelerator.print(json.dumps({"preset": run.args.preset, **asdict(run.preset)}))
    run.train()


if __name__ == "__main__":
    main()
