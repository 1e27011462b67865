"""A row: one picture under way, and everything its next step needs. Rows share nothing, so any may share a call.

Knows the two ways of stepping: our scheduler's pure update, for many rows at once, and a stock scheduler of diffusers,
which keeps its run's state inside and so belongs to one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import cycle, islice, repeat
from typing import Any, NamedTuple

import torch
from diffusers import LMSDiscreteScheduler, PNDMScheduler, SchedulerMixin

from studio.diffusion.composition import Layout
from studio.diffusion.conditioning import Condition, Task
from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE, Guidance
from studio.diffusion.noise_process import NoiseSchedule, from_original, to_original_and_noise
from studio.diffusion.schedulers.samplers import timestep_arguments
from studio.diffusion.schedulers.solver_tables import SolverTable
from studio.diffusion.schedulers.studio_scheduler import SamplingPlan, StudioScheduler, multistep_update, smooth_3x3
from studio.diffusion.tiling import TileBlender, count_tiles, row_strips, tile_corners

MAX_TILES_PER_CALL = 64  # network rows of one picture in one call: more are shown to the network over several
MOST_SHOWN = 1_000_000  # px of a picture whose condition is there to look at


class StudioStepper:
    """Steps by our scheduler: a shared plan, and this row's history of x0 predictions, newest first.

    begin: calls of the plan that are left out: the run joins there, at that noise level.  timesteps, table: in place
    of a number of steps.  leap: as in the scheduler's `plan`; `noise` (3, H, W) is what the first step draws anew.
    """

    def __init__(
        self,
        scheduler: StudioScheduler,
        num_inference_steps: int | None = None,
        begin: int = 0,
        timesteps: Sequence[float] | None = None,
        table: SolverTable | None = None,
        leap: float | None = None,
    ) -> None:
        self.plan: SamplingPlan = scheduler.plan(num_inference_steps, timesteps, begin, table, leap)
        self.leap = leap
        self.noise: torch.Tensor | None = None
        self.begin = begin
        self.prediction_type: str = scheduler.config.prediction_type
        self.times: list[float] = self.plan.timesteps.tolist()[begin:]
        self.levels = list(zip(self.plan.alphas.tolist(), self.plan.sigmas.tolist(), strict=True))[begin:]
        self.guidance: list[float] = self.plan.guidance.tolist()[begin:]
        self.initial_scale = 1.0
        self.history: list[torch.Tensor] = []

    def guided(self, scale: float, step: int) -> float:
        """The guidance scale of this call, in a run that is to be guided by `scale`."""
        return 1 + (scale - 1) * self.guidance[step]

    def noised(self, picture: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x_t of a picture where the run begins."""
        alpha, sigma = self.levels[0]
        return alpha * picture + sigma * noise

    def network_input(self, sample: torch.Tensor, step: int) -> torch.Tensor:
        return sample


class DiffusersStepper:
    """Steps by a diffusers scheduler of this row's own; `begin` of them left out, as diffusers' img2img does."""

    def __init__(
        self, scheduler: SchedulerMixin, num_inference_steps: int, device: torch.device, begin: int = 0
    ) -> None:
        config = {key: value for key, value in scheduler.config.items() if key != "solver_tables"}  # ours alone
        self.scheduler: Any = type(scheduler).from_config(config)
        if begin and isinstance(self.scheduler, LMSDiscreteScheduler | PNDMScheduler):
            raise ValueError(
                f"{type(scheduler).__name__} needs the steps before: it cannot begin from a picture; take another one"
            )
        self.scheduler.set_timesteps(**timestep_arguments(self.scheduler, num_inference_steps), device=device)
        self.begin = begin * self.scheduler.order
        if hasattr(self.scheduler, "set_begin_index"):  # some timesteps repeat (Heun): do not search for them
            self.scheduler.set_begin_index(self.begin)
        self.prediction_type: str = scheduler.config.prediction_type
        self.times: list[float] = self.scheduler.timesteps.tolist()[self.begin :]
        kept = scheduler.alphas_cumprod
        kept = torch.where(kept > 0, kept, 2**-24)  # pure noise, for a finite log-SNR: as our own scheduler has it
        alphas, sigmas = NoiseSchedule(kept).alpha_sigma(torch.tensor(self.times).double())
        self.levels = list(zip(alphas.tolist(), sigmas.tolist(), strict=True))
        self.initial_scale = float(self.scheduler.init_noise_sigma)

    def noised(self, picture: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The sample, in the scheduler's own scaling, of a picture where the run begins."""
        time = self.scheduler.timesteps[self.begin : self.begin + 1]
        return self.scheduler.add_noise(picture[None], noise[None], time)[0]

    def guided(self, scale: float, step: int) -> float:
        return scale

    def network_input(self, sample: torch.Tensor, step: int) -> torch.Tensor:
        return self.scheduler.scale_model_input(sample, self.scheduler.timesteps[self.begin + step])

    def take(
        self, prediction: torch.Tensor, sample: torch.Tensor, step: int, generator: torch.Generator
    ) -> torch.Tensor:
        """The sample (3, H, W) after this step."""
        draws = {"generator": generator} if "generator" in signature(self.scheduler.step).parameters else {}
        time = self.scheduler.timesteps[self.begin + step]
        return self.scheduler.step(prediction[None], time, sample[None], **draws).prev_sample[0]


@dataclass(frozen=True)
class StepRecord:
    """What one network call saw and said of a picture. Tensors (3, H, W), float32; never written to again.

    The predicted noise is (x_t - alpha x0) / sigma, so it is not kept.
    """

    x_t: torch.Tensor  # variance preserving, whatever the sampler's own scaling
    pred_original_sample: torch.Tensor
    guidance_difference: torch.Tensor | None  # conditional minus what guidance leads away from; None in one pass
    timestep: float  # what the network was called with, in train steps
    alpha: float
    sigma: float
    guidance_scale: float  # 1 where guidance did not act


@dataclass
class SamplingStage:
    """One run of a sampler for one picture. Tensors are float32 on the pipeline's device."""

    task: Task
    sample: torch.Tensor  # (3, H, W), x_t in the sampler's own scaling
    given: Condition
    noise_level: float  # of the low-resolution picture, in [0, 1]
    guidance: Guidance
    steps: StudioStepper | DiffusersStepper
    window: int  # px: a larger picture is seen in windows of this side
    constraints: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = ()  # make x0 (3, H, W) fit what is known, in turn
    layout: Layout | None = None  # of things that have windows of their own
    step: int = 0  # network calls made

    @property
    def condition(self) -> torch.Tensor | None:
        """(7, H, W) as the network is shown it, for looking at; None for more than a megapixel."""
        height, width = self.given.size
        if height * width > MOST_SHOWN:
            return None
        return self.given.window(0, 0, height, width, self.sample)

    @property
    def windows(self) -> Sequence[tuple[int, int]]:
        """(top, left) of the windows in which the network sees it."""
        return self.layout.corners if self.layout else tile_corners(*self.sample.shape[1:], self.window)

    @property
    def window_count(self) -> int:
        return len(self.layout.corners) if self.layout else count_tiles(*self.sample.shape[1:], self.window)

    def blend(self) -> TileBlender:
        """What puts the windows together."""
        return TileBlender(*self.sample.shape[1:], self.window, self.layout.corners if self.layout else ())

    @property
    def done(self) -> bool:
        return self.step >= len(self.steps.times)


class StageSpec(NamedTuple):
    """A stage to come: what makes it of the picture (3, H, W) of the one before, and how many calls it takes."""

    make: Callable[[torch.Tensor], SamplingStage]
    steps: int


@dataclass(frozen=True)
class PromptEmbedding:
    """A prompt as the text encoder has read it."""

    text: torch.Tensor  # (L, D), of the tokens that count


class PartialStep(NamedTuple):
    """A step under way: what the network has said of the windows that it was shown so far."""

    said: tuple[TileBlender, ...]  # with the words; where guidance acts without them, and without their style
    rows: int = 0  # network rows so far

    @property
    def torn(self) -> bool:
        """Whether a call that failed has left something of its own: then the step must begin again."""
        return sum(blend.added for blend in self.said) != self.rows


@dataclass
class SampleState:
    """One picture under way: a stage, its words, and what follows."""

    stage: SamplingStage
    words: PromptEmbedding
    negative: PromptEmbedding
    generator: torch.Generator
    seed: int | None
    finish: Any  # what `decode` needs besides: known pixels to paste back, the size to crop to
    captions: tuple[PromptEmbedding, ...] = ()  # in place of the words where there is a layout: one a window
    plain: tuple[
        PromptEmbedding, ...
    ] = ()  # captions, or words, without their style, where guidance leads away from it
    then: tuple[StageSpec, ...] = ()  # the stages to come
    steps_before: int = 0  # calls of stages that are done
    train_steps: int = 1000
    record: StepRecord | None = None  # of the last step
    seen: PartialStep | None = None  # of a step that takes several network calls

    @property
    def pred_original_sample(self) -> torch.Tensor | None:
        """(3, H, W), x0 as last predicted."""
        return None if self.record is None else self.record.pred_original_sample

    def preview(self) -> torch.Tensor | None:
        """Return x0 as last predicted, RGB (3, H, W) in about [-1, 1]; None before the first step."""
        return self.pred_original_sample

    @property
    def stage_info(self) -> SamplingStage:
        """The present stage, with the `condition`, `task` and `noise_level` that a trace stores."""
        return self.stage

    @property
    def call_key(self) -> tuple[int, int]:
        """(height, width) of a tile: pictures share a network call only where it is equal."""
        return self.call_shape

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.steps_before + self.stage.step

    @property
    def progress(self) -> float:
        """Steps taken, with what is done of the one under way."""
        return self.step + self._rows_seen / self._rows_of_step if self.seen else float(self.step)

    @property
    def num_steps(self) -> int:
        """Steps in all."""
        return self.steps_before + len(self.stage.steps.times) + sum(stage.steps for stage in self.then)

    @property
    def finished(self) -> bool:
        return self.stage.done and not self.then

    @property
    def sample(self) -> torch.Tensor:
        """(3, H, W), x_t: finished, the picture."""
        return self.stage.sample

    @property
    def time(self) -> float:
        """What the network is called with next, in train steps."""
        return self.stage.steps.times[self.stage.step]

    @property
    def guidance_scale(self) -> float:
        """By how much the next call is guided: 1 where it is not."""
        stage, guidance = self.stage, self.stage.guidance
        if not guidance.acts_at(self.time / (self.train_steps - 1)):
            return 1.0
        scale = stage.steps.guided(guidance.scale, stage.step)
        return min(scale, MAX_ONE_PASS_GUIDANCE) if guidance.one_pass else scale  # more than that it was not taught

    @property
    def passes(self) -> int:
        """How often the next step shows the network each window: with the words, and where guidance acts without them,
        and without their style."""
        guidance = self.stage.guidance
        if self.guidance_scale == 1 or guidance.one_pass:
            return 1
        return 3 if guidance.style and self.plain and self.guidance_scale > 1 else 2  # below 1 words count for less

    @property
    def call_shape(self) -> tuple[int, int]:
        """(height, width) of what the next network call is shown; only rows of one shape share a call."""
        height, width = self.stage.sample.shape[1:]
        return min(height, self.stage.window), min(width, self.stage.window)

    @property
    def call_rows(self) -> int:
        """Rows that this picture takes in the next network call, at most MAX_CALL."""
        return min(self._rows_of_step - self._rows_seen, MAX_TILES_PER_CALL)

    @property
    def _rows_seen(self) -> int:
        return 0 if self.seen is None or self.seen.torn else self.seen.rows

    @property
    def _rows_of_step(self) -> int:
        return self.stage.window_count * self.passes

    def saw_all(self, seen: PartialStep) -> bool:
        return seen.rows == self._rows_of_step

    def look(self) -> tuple[PartialStep, list[tuple[PromptEmbedding, TileBlender, int, int]]]:
        """The step under way, and what its next call is shown: words, where what is said goes, a window's top, left."""
        stage, seen = self.stage, self.seen
        if seen is None or seen.torn:
            seen = PartialStep(tuple(stage.blend() for _ in range(self.passes)))
        told = self.captions if stage.layout else repeat(self.words), repeat(self.negative), cycle(self.plain)
        tiles = (
            (words, blend, top, left)
            for blend, of_windows in zip(seen.said, told, strict=False)
            for words, (top, left) in zip(of_windows, stage.windows, strict=False)
        )
        return seen, list(islice(tiles, seen.rows, seen.rows + MAX_TILES_PER_CALL))

    @property
    def network_input(self) -> torch.Tensor:
        return self.stage.steps.network_input(self.stage.sample, self.stage.step)


def advance(rows: list[SampleState], predictions: list[torch.Tensor], differences: list[torch.Tensor | None]) -> None:
    """Take every row one step on, given the prediction (3, H, W) for it, and what guidance made of it: conditional
    minus what it leads away from, or None. Rows change in place."""
    together: dict[tuple, list[SampleState]] = {}
    for row, prediction, difference in zip(rows, predictions, differences, strict=True):
        stage, steps = row.stage, row.stage.steps
        alpha, sigma = steps.levels[stage.step]
        x_t = row.network_input
        x_0 = torch.empty_like(x_t)
        for part in row_strips(*x_t.shape[1:]):
            x_0[:, part], _ = to_original_and_noise(
                prediction[:, part], x_t[:, part], alpha, sigma, steps.prediction_type
            )
        for constrain in stage.constraints:
            x_0 = constrain(x_0)
        if stage.constraints and isinstance(
            steps, DiffusersStepper
        ):  # which wants what the network would have said for it
            prediction = from_original(x_0, x_t, alpha, sigma, steps.prediction_type)
        row.record = StepRecord(x_t, x_0, difference, row.time, alpha, sigma, row.guidance_scale)
        if isinstance(steps, DiffusersStepper):
            stage.sample = steps.take(prediction, stage.sample, stage.step, row.generator)
        else:
            plan = steps.plan
            together.setdefault((stage.sample.shape, plan.b.shape[1], plan.coarse is not None), []).append(row)
    for (_, depth, has_coarse), group in together.items():
        stages = [row.stage for row in group]
        for row in group:
            row.stage.steps.history = [row.pred_original_sample, *row.stage.steps.history][:depth]
        now = [(stage.steps.plan, stage.steps.begin + stage.step) for stage in stages]
        after = _mixed(stages, [plan.a[i] for plan, i in now], [plan.b[i] for plan, i in now])
        if has_coarse:
            a, b = ([plan.coarse[which][i] for plan, i in now] for which in range(2))
            coarse = _mixed(stages, a, b)
            after = [sample + smooth_3x3(part) for sample, part in zip(after, coarse, strict=True)]
        for stage, sample, (plan, i) in zip(stages, after, now, strict=True):
            if plan.c[i]:
                sample.add_(stage.steps.noise, alpha=float(plan.c[i]))
            stage.sample = sample
    for row in rows:
        stage = row.stage
        stage.step += 1
        if stage.done:
            if isinstance(stage.steps, StudioStepper):
                stage.steps.history = []
            if row.then:
                row.steps_before = row.step
                row.stage, row.then = row.then[0].make(stage.sample), row.then[1:]


def _mixed(stages: list[SamplingStage], a: list[torch.Tensor], b: list[torch.Tensor]) -> list[torch.Tensor]:
    """a x_t + sum_j b_j x0_j of each stage (3, H, W), all of one size: a () and b (K,) are its own."""
    samples = [torch.empty_like(stage.sample) for stage in stages]
    nothing, depth = torch.zeros(()), len(b[0])
    for part in row_strips(*samples[0].shape[1:]):
        histories = [[x_0[:, part] for x_0 in stage.steps.history] for stage in stages]
        taken = multistep_update(
            torch.stack([stage.sample[:, part] for stage in stages]),
            torch.stack([torch.stack((h + [nothing.to(h[0]).expand_as(h[0])] * depth)[:depth]) for h in histories]),
            torch.stack(a),
            torch.stack(b),
        )
        for sample, new in zip(samples, taken, strict=True):
            sample[:, part] = new
    return samples
