"""One picture of a latent model while it is made. It is the engine's row."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.diffusion.sampling.state import StepRecord
from studio.models.latent.phases import Denoising, Encoding, Outcome, Phase, begin_denoising
from studio.models.latent.plan import Plan

# The work of the VAE, in network rows of a picture of one tile: full-size SD 1.5 on a CPU.
ENCODE_WORK, DECODE_WORK = 1.5, 2.5


@dataclass(eq=False)
class StageInfo:
    """What a trace stores of a stage. `condition` is set when the stage begins."""

    noise_level: float
    condition: Tensor | None = None  # (K, h, w), the channels appended to the network's input
    task: None = None
    component: str = "unet"


@dataclass(eq=False)
class LatentRow:
    """A picture between two calls. Only `commit` changes it, and a call moves the generator on.

    phase: the next call belongs to it; None: finished. picture: (3, H, W) in about [-1, 1], once finished.
    notes: sentences about what happened, for people.
    """

    plan: Plan
    seed: int
    generator: torch.Generator
    phase: Phase | None
    record: StepRecord | None = None  # of the last step
    picture: Tensor | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def begin(cls, plan: Plan, seed: int) -> LatentRow:
        """Return a picture before its first call, with a generator of its own from the seed."""
        generator = torch.Generator().manual_seed(seed)
        row = cls(plan, seed, generator, Encoding(plan=plan))
        if not plan.start.pictures:
            row.commit(Outcome(begin_denoising(plan, (), generator)))
        return row

    def __post_init__(self) -> None:
        self._infos = [StageInfo(stage.noise_level) for stage in self.plan.stages]

    @property
    def step(self) -> int:
        """Denoising steps taken."""
        return self.plan.steps if self.phase is None else self.phase.step

    @property
    def num_steps(self) -> int:
        """Denoising steps in all."""
        return self.plan.steps

    @property
    def progress(self) -> float:
        """The share of the work that is done, 0 to 1. It rises with each call."""
        if self.phase is None:
            return 1.0
        plan, done = self.plan, 0.0
        tile = plan.stages[-1].tiles
        area = tile.height * tile.width / (tile.shape[0] * tile.shape[1])
        work = [ENCODE_WORK * area * len(plan.start.pictures)]
        work += [stage.steps * len(stage.inputs) for stage in plan.stages]
        work.append(DECODE_WORK * area)
        index = 0 if isinstance(self.phase, Encoding) else len(work) - 1
        if isinstance(self.phase, Denoising):
            index = 1 + self.phase.number
        done = sum(work[:index]) + work[index] * self.phase.share
        return done / sum(work)

    @property
    def finished(self) -> bool:
        return self.phase is None

    @property
    def call_key(self) -> Hashable:
        """(model id, kind of call, shape of an input): rows share a call only where it is equal."""
        assert self.phase is not None, "a finished row makes no call"
        return self.phase.networks.model_id, self.phase.kind, self.phase.input_shape

    @property
    def call_rows(self) -> int:
        """Network rows of the next call."""
        assert self.phase is not None, "a finished row makes no call"
        return self.phase.call_rows

    @property
    def stage_info(self) -> StageInfo:
        """What a trace stores of the stage of the next step, or of the last one."""
        if isinstance(self.phase, Denoising):
            return self._infos[self.phase.number]
        return self._infos[0 if isinstance(self.phase, Encoding) else -1]

    def preview(self) -> Tensor | None:
        """Return the picture as predicted now, RGB (3, h, w) in about [-1, 1], one px per latent px; None before."""
        return None if self.record is None else self.plan.decoder.preview(self.record.pred_original_sample)

    def commit(self, outcome: Outcome) -> None:
        """Advance by a call that was computed."""
        self.phase = outcome.phase
        if isinstance(outcome.phase, Denoising):
            self._infos[outcome.phase.number].condition = outcome.phase.channels
        if outcome.record is not None:
            self.record = outcome.record
        if outcome.picture is not None:
            self.picture = outcome.picture
