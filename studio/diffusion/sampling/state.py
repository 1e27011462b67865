"""The state of one picture while it is denoised: its stage, its text conditioning, and the step in progress.

Pictures share no state, so any of them may share a network call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from studio.diffusion.composition import Layout
from studio.diffusion.conditioning import Condition, Task, match_colors, replace_known
from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE, Guidance
from studio.diffusion.sampling.steppers import Stepper
from studio.diffusion.tiling import TileBlender, tile_corners

MAX_TILES_PER_CALL = 64  # network rows of one picture in one call; a larger picture takes several calls a step
MAX_CONDITION_PIXELS = 1_000_000  # a larger picture offers no dense condition for its trace
FINISHING_NOISE = 0.1  # noise level given to super-resolution, so that it removes flaws


def randn(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Return standard normal numbers on the CPU, from a generator on any device."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device).cpu()


@dataclass(frozen=True)
class StepRecord:
    """One step of a picture. Tensors (3, H, W), float32, are never written to again.

    The predicted noise is (x_t - alpha x0) / sigma, so it is not stored.
    """

    x_t: torch.Tensor  # variance preserving, whatever the sampler's own scaling
    pred_original_sample: torch.Tensor
    guidance_difference: torch.Tensor | None  # conditional minus guidance baseline; None without a second prediction
    timestep: float  # of the network call, in train steps
    alpha: float
    sigma: float
    guidance_scale: float  # 1 where guidance did not act


@dataclass(frozen=True)
class TextConditioning:
    """The embeddings (L, D) of a picture's texts."""

    prompt: torch.Tensor
    negative_prompt: torch.Tensor
    captions: tuple[torch.Tensor, ...] = ()  # of the tiles of a layout, in place of the prompt
    plain: tuple[torch.Tensor, ...] = ()  # the captions, or the prompt, without their style, for style emphasis


@dataclass
class SamplingStage:
    """One run of a sampler for one picture. Tensors are float32 on the pipeline's device.

    `condition`, `task` and `noise_level` are what a trace stores of it. Only `sample`, `step` and `stepper_state`
    change.
    """

    task: Task
    sparse_condition: Condition
    noise_level: float  # of the low-resolution picture, in [0, 1]
    guidance: Guidance
    stepper: Stepper
    tile_size: int  # px: a larger picture is predicted in tiles of this side
    sample: torch.Tensor  # (3, H, W), in the sampler's own scaling
    constraints: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = ()  # applied to x0 (3, H, W), in order
    layout: Layout | None = None
    component: str = "unet"  # of the pipeline: the network that predicts
    restart_noise: torch.Tensor | None = None  # (3, H, W), of a stepper with a restart time
    step: int = 0  # steps taken
    stepper_state: Any = None
    corners: Sequence[tuple[int, int]] = field(init=False)  # (top, left) of each tile

    def __post_init__(self) -> None:
        self.stepper_state = self.stepper.initial_state
        height, width = self.sample.shape[1:]
        self.corners = self.layout.corners if self.layout else tile_corners(height, width, self.tile_size)

    @classmethod
    def start(
        cls,
        task: Task,
        condition: Condition,
        generator: torch.Generator,
        device: torch.device,
        *,
        guidance: Guidance,
        stepper: Stepper,
        tile_size: int,
        noise_level: float = 0.0,
        picture: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        constraints: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (),
        layout: Layout | None = None,
        component: str = "unet",
    ) -> SamplingStage:
        """Return a stage before its first step: noise, over a picture (3, H, W) if one is given.

        noise: (3, H, W), standard normal. None: from the generator.
        """
        noise = randn((3, *condition.size), generator) if noise is None else noise.float().cpu()
        noise = (layout.share_coarse_noise(noise) if layout else noise).to(device)
        restarts = stepper.restart_time is not None
        return cls(
            task=task,
            sparse_condition=condition.to(device),
            noise_level=noise_level,
            guidance=guidance,
            stepper=stepper,
            tile_size=tile_size,
            sample=noise * stepper.initial_scale if picture is None else stepper.add_noise(picture.to(device), noise),
            constraints=constraints,
            layout=layout,
            component=component,
            restart_noise=randn((3, *condition.size), generator).to(device) if restarts else None,
        )

    @property
    def condition(self) -> torch.Tensor | None:
        """The condition channels (7, H, W); None for more than MAX_CONDITION_PIXELS."""
        height, width = self.sparse_condition.size
        if height * width > MAX_CONDITION_PIXELS:
            return None
        return self.sparse_condition.crop(0, 0, height, width, self.sample)


class KnownPixels(NamedTuple):
    """A picture of which a part is known."""

    picture: torch.Tensor  # (3, H, W) in [-1, 1]
    mask: torch.Tensor  # (1, H, W), 1 where it is known


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A super-resolution stage that follows: it enlarges the result of the stage before it, with the same colors."""

    size: tuple[int, int]  # (H, W) of its result
    stepper: Stepper
    tile_size: int  # px
    component: str = "unet"  # or "upscaler"
    noise_level: float = FINISHING_NOISE  # input of the network; no noise is added
    starts_enlarged: bool = False  # from the enlarged picture under noise, not from noise alone
    layout: Layout | None = None  # of that size
    keeps_original: bool = False  # pixels outside of the layout's tiles stay those of the enlarged picture
    known_small: KnownPixels | None = None  # at the size of the stage before
    known: KnownPixels | None = None  # at `size`

    def start(self, result: torch.Tensor, generator: torch.Generator) -> SamplingStage:
        """Return the stage before its first step. result: (3, h, w), of the stage before."""
        device, picture = result.device, result.cpu()
        if self.known_small is not None:
            picture = replace_known(*self.known_small, picture)
        picture = picture.clamp(-1, 1)
        condition = Condition.super_resolution(picture, self.size)
        constraints = [partial(match_colors, picture.to(device))] if self.component == "unet" else []
        if self.known is not None:
            constraints.append(partial(replace_known, self.known.picture.to(device), self.known.mask.to(device)))
        if self.layout:  # before: uncovered pixels have no color to match; after: matching must not change them
            original = condition.enlarged if self.keeps_original else None
            merge = self.layout.background_constraint(original, device)
            constraints = [merge, *constraints, merge]
        return SamplingStage.start(
            Task.SUPER_RESOLUTION,
            condition,
            generator,
            device,
            guidance=Guidance(),
            stepper=self.stepper,
            tile_size=self.tile_size,
            noise_level=self.noise_level,
            picture=condition.enlarged if self.starts_enlarged else None,
            constraints=tuple(constraints),
            layout=self.layout,
            component=self.component,
        )


@dataclass(frozen=True)
class PartialStep:
    """The step in progress: the input of its network calls, and the predictions so far."""

    x_t: torch.Tensor  # (3, H, W), the network's input
    time: float  # in train steps
    guidance_scale: float  # 1 where guidance does not act
    blenders: tuple[TileBlender, ...]  # of the predictions: with prompt; with negative prompt; without style
    tiles_done: int = 0

    @property
    def is_torn(self) -> bool:
        """Whether a call failed while its predictions were added: then the step must begin again."""
        return sum(blender.added for blender in self.blenders) != self.tiles_done


class Tile(NamedTuple):
    """One row of a network call: a tile of a picture, and the text that conditions it."""

    stage: SamplingStage
    step: PartialStep
    text: torch.Tensor  # (L, D)
    top: int
    left: int
    blender: TileBlender  # of its prediction


class StepResult(NamedTuple):
    """The values that a step changes; see `SampleState.commit`."""

    record: StepRecord
    sample: torch.Tensor
    stepper_state: Any
    next_stage: SamplingStage | None  # where the step was the stage's last, and another stage follows


@dataclass
class SampleState:
    """One picture while it is denoised. It is the engine's row."""

    stage: SamplingStage
    text: TextConditioning
    generator: torch.Generator
    seed: int | None
    output: Any  # an `OutputSpec`, for `StudioPipeline.decode`
    next_stages: tuple[StageSpec, ...] = ()
    train_steps: int = 1000
    steps_before: int = 0  # of stages that are complete
    record: StepRecord | None = None  # of the last step
    partial_step: PartialStep | None = None  # of a step that takes several network calls

    @property
    def pred_original_sample(self) -> torch.Tensor | None:
        """x0 (3, H, W) as last predicted; None before the first step."""
        return None if self.record is None else self.record.pred_original_sample

    def preview(self) -> torch.Tensor | None:
        """Return x0 as last predicted, RGB (3, H, W) in about [-1, 1]; None before the first step."""
        return self.pred_original_sample

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what went another way than requested: none."""
        return ()

    @property
    def stage_info(self) -> SamplingStage:
        """The present stage, with the `condition`, `task` and `noise_level` that a trace stores."""
        return self.stage

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.steps_before + self.stage.step

    @property
    def progress(self) -> float:
        """Finished share of all steps, 0 to 1, with the finished part of the step in progress."""
        partial_step, steps = self.partial_step, float(self.step)
        if partial_step is not None and not partial_step.is_torn:
            steps += partial_step.tiles_done / (len(self.stage.corners) * len(partial_step.blenders))
        return steps / self.num_steps

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        following = sum(len(spec.stepper.times) for spec in self.next_stages)
        return self.steps_before + len(self.stage.stepper.times) + following

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.stage.step >= len(self.stage.stepper.times) and not self.next_stages

    @property
    def sample(self) -> torch.Tensor:
        """x_t (3, H, W), in the sampler's own scaling; of a finished picture, the picture."""
        return self.stage.sample

    @property
    def time(self) -> float:
        """The time of the next network call, in train steps."""
        return self.stage.stepper.times[self.stage.step]

    @property
    def guidance_scale(self) -> float:
        """The guidance scale of the next step; 1 where guidance does not act."""
        stage, guidance = self.stage, self.stage.guidance
        if not guidance.acts_at(stage.stepper.times[stage.step] / (self.train_steps - 1)):
            return 1.0
        share = stage.stepper.guidance_shares[stage.step]
        scale = guidance.scale if share == 1 else 1 + (guidance.scale - 1) * share
        return min(scale, MAX_ONE_PASS_GUIDANCE) if guidance.one_pass else scale

    @property
    def passes(self) -> int:
        """Predictions of each tile in the next step: with prompt, with negative prompt, without style."""
        guidance, scale = self.stage.guidance, self.guidance_scale
        if scale == 1 or guidance.one_pass:
            return 1
        return 3 if guidance.style and self.text.plain and scale > 1 else 2  # below 1 a style is not to be emphasized

    @property
    def call_key(self) -> tuple[str, int, int]:
        """The network, and height and width of a tile: pictures share a network call only where it is equal."""
        height, width = self.stage.sample.shape[1:]
        return self.stage.component, min(height, self.stage.tile_size), min(width, self.stage.tile_size)

    @property
    def call_rows(self) -> int:
        """Network rows of this picture in the next call, at most MAX_TILES_PER_CALL."""
        partial_step = self.partial_step
        if partial_step is None or partial_step.is_torn:
            return min(len(self.stage.corners) * self.passes, MAX_TILES_PER_CALL)
        remaining = len(self.stage.corners) * len(partial_step.blenders) - partial_step.tiles_done
        return min(remaining, MAX_TILES_PER_CALL)

    def next_tiles(self) -> tuple[PartialStep, list[Tile]]:
        """Return the step in progress, or a new one, and the tiles of its next network call."""
        stage, text, corners, partial_step = self.stage, self.text, self.stage.corners, self.partial_step
        if partial_step is None or partial_step.is_torn:
            x_t = stage.stepper.network_input(stage.stepper_state, stage.sample, stage.step)
            height, width = x_t.shape[1:]
            size, is_grid = stage.tile_size, stage.layout is None
            blenders = [TileBlender(height, width, size, corners, is_grid) for _ in range(self.passes)]
            time = stage.stepper.times[stage.step]
            partial_step = PartialStep(x_t, time, self.guidance_scale, tuple(blenders))
        with_prompt = text.captions if stage.layout else (text.prompt,)
        texts_of_passes = (with_prompt, (text.negative_prompt,), text.plain)
        begin, end = partial_step.tiles_done, len(corners) * len(partial_step.blenders)
        tiles = []
        for index in range(begin, min(begin + MAX_TILES_PER_CALL, end)):
            number, place = divmod(index, len(corners))
            texts, blender = texts_of_passes[number], partial_step.blenders[number]
            tiles.append(Tile(stage, partial_step, texts[place % len(texts)], *corners[place], blender))
        return partial_step, tiles

    def commit(self, result: StepResult) -> None:
        """Advance by a step that was computed."""
        stage = self.stage
        stage.step += 1
        stage.sample, stage.stepper_state = result.sample, result.stepper_state
        self.record, self.partial_step = result.record, None
        if result.next_stage is not None:
            self.steps_before += stage.step
            self.stage, self.next_stages = result.next_stage, self.next_stages[1:]
