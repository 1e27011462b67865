"""What the pipelines share: rows made from prompts and conditions, `denoise_step`, `decode`, and the plain loop.

Knows nothing of any one task, of queues, files of the user, or pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from studio.diffusion.composition import Layout
from studio.diffusion.conditioning import Condition, Task, back_project, enlarge, match_colours, replace_known
from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE, Guidance
from studio.diffusion.sampling.batched_call import denoise_call
from studio.diffusion.sampling.state import (
    DiffusersStepper,
    PromptEmbedding,
    SampleState,
    SamplingStage,
    StageSpec,
    StudioStepper,
)
from studio.diffusion.schedulers.samplers import make_sampler
from studio.diffusion.schedulers.solver_tables import SolverTable, fingerprint
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.diffusion.tiling import row_strips
from studio.diffusion.unet import StudioUNet
from studio.imaging.areas import Area
from studio.prompts.nouns import texts_without_style

FINISHING_NOISE = 0.1  # what sharpening is told is on a painted picture, on which none is put: its flaws are to go


@dataclass(frozen=True)
class OutputSpec:
    """What turns a row's last sample into the picture to give back."""

    size: tuple[int, int]  # height, width to scale to
    crop: tuple[float, float] = (1.0, 1.0)  # share of the sample's height, width that is no padding
    low_res: torch.Tensor | None = None  # (1, 3, h, w): what the sample must shrink to
    area: Area | None = None  # of a larger picture: where it is put back
    alpha: Image.Image | None = None  # L, of `size`: the picture's transparency


class StudioPipeline(DiffusionPipeline):
    """What the four pipelines share.

    Args:
        unet: the network.
        scheduler: `StudioScheduler`, or any diffusers scheduler made `from_config` of it.
        text_encoder, tokenizer: turn prompts into (L, D) vectors.
    """

    model_cpu_offload_seq = "text_encoder->unet"
    _callback_tensor_inputs = ["latents", "pred_original_sample"]

    def __init__(
        self,
        unet: StudioUNet,
        scheduler: SchedulerMixin,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer)
        self._made_for: SchedulerMixin | None = None

    @property
    def sample_size(self) -> int:
        """Side in pixels at which words become a picture, and holes are filled."""
        return self.unet.config.sample_size

    @property
    def window_size(self) -> int:
        """Side in pixels of the windows in which a picture is sharpened."""
        return self.unet.config.window_size

    @property
    def vocabulary(self) -> dict[str, list] | None:
        """What the weights claim to know, from vocabulary.json beside them: concepts, styles, grounds."""
        file = Path(self.config.get("_name_or_path") or ".") / "vocabulary.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def truncated(self, prompt: str) -> str:
        """The end of the prompt that the text encoder cannot read, "" if there is none."""
        limit = self.tokenizer.model_max_length
        if len(self.tokenizer(prompt).input_ids) <= limit:
            return ""
        offsets = self.tokenizer(prompt, return_offsets_mapping=True).offset_mapping
        return prompt[offsets[limit - 1][0] :].strip()

    @property
    def _execution_device(self) -> torch.device:
        """Where the network computes. diffusers looks through all modules for hooks that bring in what lies elsewhere,
        a tenth of a small picture's time; ours has one as a whole or on its first layer, wherever it has any."""
        unet = self.unet
        if any(hasattr(part, hook) for part in (unet, unet.stem) for hook in ("_hf_hook", "_diffusers_hook")):
            return super()._execution_device
        return unet.stem.weight.device

    # ---- the core ----

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L, D) float32, as long as the longest, and the mask (B, L) of the tokens that count: the first."""
        different = list(dict.fromkeys(prompts))
        words = self.tokenizer(different, padding=True, truncation=True, return_tensors="pt")
        words = words.to(self._execution_device)
        text = self.text_encoder(input_ids=words.input_ids, attention_mask=words.attention_mask).last_hidden_state
        pick = [different.index(prompt) for prompt in prompts]
        return text.float()[pick], words.attention_mask[pick]

    def _steps(
        self,
        sampler: str | SchedulerMixin | None,
        num_inference_steps: int,
        strength: float = 1.0,
        fitted_for: Guidance | None = None,
        leap: float | None = None,
    ) -> StudioStepper | DiffusersStepper:
        """One picture's steps by a named sampler, a scheduler, or the pipeline's own; the last `strength` of them.

        fitted_for: this guidance, for a run of the kind that the scheduler's tables were fitted for; None for others.
        leap: as in our scheduler's `plan`; other samplers, and runs of one step, know no such thing.
        """
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be 1 or more")
        if sampler == "studio":
            scheduler = self._own_sampler
        else:
            scheduler = make_sampler(sampler, self.scheduler.config) if isinstance(sampler, str) else sampler
            scheduler = scheduler or self.scheduler
        begin = num_inference_steps - max(int(num_inference_steps * strength), 1)
        if isinstance(scheduler, StudioScheduler):
            table = None if fitted_for is None else self._table(scheduler, num_inference_steps, fitted_for)
            if table is not None:
                return StudioStepper(scheduler, table=table)
            if leap is not None and num_inference_steps > 1:
                return StudioStepper(scheduler, num_inference_steps, leap=leap)
            return StudioStepper(scheduler, num_inference_steps, begin)
        return DiffusersStepper(scheduler, num_inference_steps, self._execution_device, begin)

    @property
    def _own_sampler(self) -> SchedulerMixin:
        """The sampler "studio" for the scheduler that stands here now. Made once: its plans leave it as it is, and
        making one takes half as long as a small network call."""
        if self._made_for is not self.scheduler:
            self._made_for, self._made = self.scheduler, make_sampler("studio", self.scheduler.config)
        return self._made

    def _table(self, scheduler: StudioScheduler, num_inference_steps: int, guidance: Guidance) -> SolverTable | None:
        """The solver table for a run from pure noise, if there is one that was fitted to this network."""
        if guidance.scale != 1 and (guidance.start, guidance.stop) != (0, 1):
            return None
        table = scheduler.tables.find(num_inference_steps, guidance.scale)
        return table if table is not None and scheduler.tables.model == fingerprint(self.unet) else None

    def _stage(
        self,
        task: Task,
        condition: Condition,
        generator: torch.Generator,
        guidance: Guidance,
        steps: StudioStepper | DiffusersStepper,
        noise_level: float = 0.0,
        picture: torch.Tensor | None = None,
        constraints: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (),
        layout: Layout | None = None,
    ) -> SamplingStage:
        """A stage at its start: noise, drawn where the picture's own generator is, over a picture if there is one to
        start from."""
        device = self._execution_device
        noise = randn((3, *condition.size), generator)
        noise = (layout.share_coarse_noise(noise) if layout else noise).to(device)
        if isinstance(steps, StudioStepper) and steps.leap is not None:
            steps.noise = randn((3, *condition.size), generator).to(device)
        return SamplingStage(
            task=task,
            sample=noise * steps.initial_scale if picture is None else steps.noised(picture.to(device), noise),
            given=condition.to(device),
            noise_level=noise_level,
            guidance=guidance,
            steps=steps,
            window=self._window(task),
            constraints=constraints,
            layout=layout,
        )

    def _window(self, task: Task) -> int:
        """Side in px of the windows in which a stage of this task is seen: what it was trained at."""
        return self.window_size if task == Task.SUPER_RESOLUTION else self.sample_size

    def _rows(
        self,
        stages: Sequence[Callable[[Guidance], SamplingStage]],
        finishes: Sequence[OutputSpec],
        prompts: Sequence[str],
        negative_prompts: Sequence[str] | None,
        guidance: Guidance,
        seeds: Sequence[int] | None,
        generators: Sequence[torch.Generator],
        then: Sequence[tuple[StageSpec, ...]] | None = None,
        layouts: Sequence[Layout | None] = (),
    ) -> list[SampleState]:
        """One row a prompt; each stage is made with the guidance that its words call for.

        layouts: of the stages, None for one without; their captions are read, too.
        """
        negative_prompts = negative_prompts or [""] * len(prompts)
        if len(negative_prompts) != len(prompts):
            raise ValueError(
                f"{len(negative_prompts)} negative_prompts for {len(prompts)} prompts; there must be one for each"
            )
        one_pass = [guidance.one_pass and self.guides_in_one_pass(guidance.scale, other) for other in negative_prompts]
        # a second row that is never shown has no words of its own to read
        others = [p if alone else n for p, n, alone in zip(prompts, negative_prompts, one_pass, strict=True)]
        captions = [layout.captions if layout else () for layout in layouts] or [()] * len(prompts)
        plains = [
            () if alone or not guidance.style else texts_without_style(told or (prompt,), other)
            for prompt, other, told, alone in zip(prompts, negative_prompts, captions, one_pass, strict=True)
        ]
        texts, mask = self.encode([*prompts, *others, *chain(*captions), *chain(*plains)])
        read = (PromptEmbedding(text[:count]) for text, count in zip(texts, mask.sum(1).tolist(), strict=True))
        words, negatives = (list(islice(read, len(prompts))) for _ in range(2))
        captions, plains = ([tuple(islice(read, len(texts))) for texts in many] for many in (captions, plains))
        rows = []
        for i, (stage, finish, generator) in enumerate(zip(stages, finishes, generators, strict=True)):
            same = prompts[i] == negative_prompts[i]  # guidance away from the prompt itself does nothing
            rows.append(
                SampleState(
                    stage(Guidance() if same else replace(guidance, one_pass=one_pass[i])),
                    words=words[i],
                    negative=negatives[i],
                    generator=generator,
                    seed=None if seeds is None else seeds[i],
                    finish=finish,
                    captions=captions[i],
                    plain=plains[i],
                    then=then[i] if then else (),
                    train_steps=self.scheduler.config.num_train_timesteps,
                )
            )
        return rows

    def _sharpened(
        self,
        size: tuple[int, int],
        num_inference_steps: int,
        generator: torch.Generator,
        picture: torch.Tensor,
        known: tuple[torch.Tensor, torch.Tensor] | None = None,
        layout: Layout | None = None,
        begun: bool = False,
    ) -> SamplingStage:
        """The stage that paints a painted picture (3, h, w) at `size` (H, W), in its colours. In one call it begins
        half way, from the picture enlarged: from noise alone, one call leaves grain.

        known: a picture (3, H, W) and where it is known (1, H, W), if it is: there x0 is held to it.
        layout: of that size, if there is one. begun: whether what was painted was begun from a picture.
        """
        picture, device, one = picture.clamp(-1, 1).cpu(), self._execution_device, num_inference_steps == 1
        constraints = [partial(match_colours, picture.to(device))]
        if known is not None:
            constraints.append(partial(replace_known, *(part.to(device) for part in known)))
        if layout:  # where there is no window nothing has a colour before, and none is to change after
            together = self._together(layout, enlarge(picture[None], size)[0] if begun else None)
            constraints = [together, *constraints, together]
        return self._stage(
            Task.SUPER_RESOLUTION,
            Condition.super_resolution(picture, size),
            generator,
            Guidance(),
            self._steps("studio", 2, strength=0.5) if one else self._steps("studio", num_inference_steps),
            FINISHING_NOISE,
            picture=enlarge(picture[None], size)[0] if one else None,
            constraints=tuple(constraints),
            layout=layout,
        )

    def _together(self, layout: Layout, begun: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
        """What makes one picture of a layout's windows: where there is none, it goes on as they end, or stays what it
        was begun from (3, side, side)."""
        if begun is None:
            return layout.merge_background
        device = self._execution_device
        return partial(replace_known, begun.to(device), (1 - layout.covered()).to(device))

    @torch.no_grad()
    def denoise_step(self, rows: Sequence[SampleState]) -> None:
        """Take rows of any task, step and sampler one step on; windows of one size share a network call.

        A picture larger than its stage's window is several windows of that call, whose predictions are blended. Rows
        change in place. Raises ValueError for a row that is finished.
        """
        steps = [row.step for row in rows]
        while left := [row for row, step in zip(rows, steps, strict=True) if row.step == step]:
            self.denoise_call(left)

    def denoise_call(self, rows: Sequence[SampleState]) -> None:
        """Show the network each row's next windows, at most MAX_CALL of each row; a row that it has seen all of takes
        its step. So no call is long, however large the picture."""
        denoise_call(self.unet, rows)

    def guides_in_one_pass(self, scale: float, negative_prompt: str = "") -> bool:
        """Whether the network can guide by this scale without a second row: it was taught to, from 1 to MAX_GUIDANCE,
        and away from nothing but silence."""
        return bool(self.unet.config.guidance_rank) and 1 <= scale <= MAX_ONE_PASS_GUIDANCE and not negative_prompt

    @torch.no_grad()
    def decode(self, row: SampleState) -> Image.Image:
        """The row's picture as it stands: finished, or as x0 is predicted now. RGB, or RGBA where it has an alpha."""
        values, finish = row.sample if row.finished else row.pred_original_sample, row.finish
        if values is None:
            raise ValueError("a row that has not taken a step has no picture yet")
        if finish.low_res is not None:
            values = back_project(values[None].clamp(-1, 1), finish.low_res.to(values.device))[0]
        height, width = (max(round(s * length), 1) for s, length in zip(finish.crop, values.shape[1:], strict=True))
        picture = tensor_to_image(values[:, :height, :width])
        if finish.area is not None:
            return finish.area.paste_back(picture)
        if picture.size != finish.size[::-1]:
            picture = picture.resize(finish.size[::-1], Image.Resampling.BICUBIC)
        if finish.alpha is not None:
            picture.putalpha(finish.alpha)
        return picture

    # ---- the loop that a diffusers user calls ----

    def _run(
        self,
        rows: list[SampleState],
        output_type: str,
        return_dict: bool,
        callback_on_step_end: Callable[..., dict] | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
    ) -> ImagePipelineOutput | tuple:
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; it must be one of pil, np, pt")
        for name in callback_on_step_end_tensor_inputs:
            if name not in self._callback_tensor_inputs:
                allowed = ", ".join(self._callback_tensor_inputs)
                raise ValueError(f"callback_on_step_end_tensor_inputs has {name!r}; it may have {allowed}")
        self._interrupt, number = False, 0
        with self.progress_bar(total=max(row.num_steps for row in rows)) as bar:
            # pictures of several sizes may take different numbers of steps
            while not self._interrupt and (left := [row for row in rows if not row.finished]):
                time = left[0].time
                self.denoise_step(left)
                bar.update()
                if callback_on_step_end is not None:
                    known = {
                        "latents": _stacked([row.sample for row in left]),
                        "pred_original_sample": _stacked([row.pred_original_sample for row in left]),
                    }
                    given = {name: known[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, number, time, given) or {}
                    for row, sample in zip(left, changed.get("latents", known["latents"]), strict=True):
                        row.stage.sample = sample
                number += 1
        self.maybe_free_model_hooks()
        images: Any = [self.decode(row) for row in rows]
        if output_type != "pil":
            if len({image.size for image in images}) > 1:
                raise ValueError(f"output_type is {output_type!r}; pictures of several sizes can only be had as pil")
            images = np.stack([np.asarray(image, dtype=np.float32) / 255 for image in images])  # (B, H, W, 3)
        if output_type == "pt":
            images = torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, 3, H, W) in [0, 1]
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def interrupt(self) -> None:
        """End the call under way after its present step; it returns the pictures as predicted so far."""
        self._interrupt = True


def _stacked(pictures: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    """(B, 3, H, W); pictures of several sizes stay a list."""
    return torch.stack(pictures) if len({picture.shape for picture in pictures}) == 1 else pictures


def randn(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Standard normal numbers on the CPU, from a generator on whatever device."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device).cpu()


def image_to_tensor(picture: Image.Image | np.ndarray) -> torch.Tensor:
    """RGB, or (H, W, 3) uint8 -> (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def tensor_to_image(picture: torch.Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1], clipped -> RGB."""
    values = torch.empty(picture.shape, dtype=torch.uint8, device=picture.device)
    for part in row_strips(*picture.shape[1:]):
        values[:, part] = ((picture[:, part].clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
