"""What the pipelines share: text embeddings, steppers, `denoise_step` and `decode`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from studio.diffusion.composition import Layout
from studio.diffusion.conditioning import back_project
from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE, Guidance
from studio.diffusion.pipelines.params import SamplingParams
from studio.diffusion.sampling.batched_call import denoise_call
from studio.diffusion.sampling.state import FINISHING_NOISE, SampleState, StageSpec, TextConditioning
from studio.diffusion.sampling.steppers import DiffusersStepper, Stepper, StudioStepper
from studio.diffusion.schedulers.samplers import AnyScheduler, make_sampler
from studio.diffusion.schedulers.solver_tables import SolverTable, fingerprint
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.diffusion.tiling import split_rows
from studio.diffusion.unet import StudioUNet
from studio.imaging.areas import Area
from studio.prompts.nouns import texts_without_style

MAX_STEPPERS = 32  # that a pipeline keeps


@dataclass(frozen=True)
class OutputSpec:
    """How a picture's last sample becomes the picture to return."""

    size: tuple[int, int]  # (width, height) to scale to
    crop: tuple[float, float] = (1.0, 1.0)  # share of the sample's height and width that is not padding
    low_res: torch.Tensor | None = None  # (1, 3, h, w): the block means that the sample must have
    area: Area | None = None  # of a larger picture: where the result is pasted back
    alpha: Image.Image | None = None  # L, of `size`: the transparency


class StudioPipeline(DiffusionPipeline):
    """Base of the four pipelines.

    Args:
        unet: the network.
        scheduler: `StudioScheduler`, or any diffusers scheduler made `from_config` of it.
        text_encoder, tokenizer: turn prompts into (L, D) embeddings.
        upscaler: a network with `low_res_only`, which enlarges twofold in one call. None: `unet` does it.
    """

    unet: StudioUNet
    scheduler: AnyScheduler
    text_encoder: CLIPTextModel
    tokenizer: Any  # a CLIPTokenizer; its methods are not typed
    upscaler: StudioUNet | None
    progress_bar: Callable[..., Any]  # of diffusers, where a decorator hides its type

    model_cpu_offload_seq = "text_encoder->unet->upscaler"
    _optional_components = ["upscaler"]
    _callback_tensor_inputs = ["latents", "pred_original_sample", "prompt_embeds"]

    def __init__(
        self,
        unet: StudioUNet,
        scheduler: SchedulerMixin,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        upscaler: StudioUNet | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer, upscaler=upscaler
        )
        self._studio_samplers: dict[AnyScheduler, AnyScheduler] = {}  # by the scheduler that they are made of
        self._steppers: dict[tuple, Stepper] = {}  # by the arguments that they are made of
        self._interrupt, self._num_timesteps, self._guidance_scale = False, 0, 1.0

    @property
    def num_timesteps(self) -> int:
        """Steps of the present or last call, of its picture with the most."""
        return self._num_timesteps

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of the present or last call. A callback may set `_guidance_scale`, as in diffusers."""
        return self._guidance_scale

    @property
    def interrupt(self) -> bool:
        """Whether the present call ends after its step. A callback may set `_interrupt`, as in diffusers."""
        return self._interrupt

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Any:
        """Return a pipeline of this class with the components of another one, in their dtype.

        diffusers' own method converts them, also those of the other pipeline, to float32 unless a dtype is given.
        """
        if "dtype" not in kwargs and "torch_dtype" not in kwargs:
            kwargs["dtype"] = pipeline.dtype
        return super().from_pipe(pipeline, **kwargs)

    @property
    def sample_size(self) -> int:
        """Side in px at which the network paints from text and fills holes."""
        return self.unet.config.sample_size

    @property
    def window_size(self) -> int:
        """Side in px of the tiles of super-resolution."""
        return self.unet.config.window_size

    @property
    def vocabulary(self) -> dict[str, list] | None:
        """What the weights know, from vocabulary.json beside them: concepts, styles, backgrounds."""
        file = Path(self.config.get("_name_or_path") or ".") / "vocabulary.json"
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    def truncated(self, prompt: str) -> str:
        """Return the end of the prompt that the text encoder cannot read, "" if there is none."""
        limit = self.tokenizer.model_max_length
        if len(self.tokenizer(prompt).input_ids) <= limit:
            return ""
        offsets = self.tokenizer(prompt, return_offsets_mapping=True).offset_mapping
        return prompt[offsets[limit - 1][0] :].strip()

    @property
    def _execution_device(self) -> torch.device:
        """Where the network computes.

        diffusers searches all modules for offloading hooks, which is slow next to a small call. Our network has a hook
        on itself or on its first layer if it has any.
        """
        for module in (self.unet, self.unet.stem):
            if hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook"):
                return super()._execution_device
        return self.unet.stem.weight.device

    # ---- text ----

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings (B, L, D), float32, L that of the longest prompt, and the mask (B, L) of their tokens."""
        unique = list(dict.fromkeys(prompts))
        tokens = self.tokenizer(unique, padding=True, truncation=True, return_tensors="pt")
        tokens = tokens.to(self._execution_device)
        embeddings = self.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        index = list(map(unique.index, prompts))
        return embeddings.float()[index], tokens.attention_mask[index]

    def guides_in_one_pass(self, scale: float, negative_prompt: str = "") -> bool:
        """Return whether the network can guide by this scale without a second prediction.

        It learned scales from 1 to MAX_ONE_PASS_GUIDANCE, and no negative prompts.
        """
        return bool(self.unet.config.guidance_rank) and 1 <= scale <= MAX_ONE_PASS_GUIDANCE and not negative_prompt

    def _condition_on_text(
        self, params: SamplingParams, layouts: Sequence[Layout | None] | None = None
    ) -> list[tuple[Guidance, TextConditioning]]:
        """Return each picture's guidance and embeddings; each text is encoded once.

        Guidance is left out where the negative prompt is the prompt itself, and acts in one pass only where the
        network can.
        """
        guidance, rows, texts = params.guidance, [], {}
        for i, prompt in enumerate(params.prompts):
            negative_prompt = params.negative_prompts[i] if params.negative_prompts else ""
            layout = layouts[i] if layouts else None
            captions = layout.captions if layout else ()
            own, plain = Guidance(), ()
            if prompt != negative_prompt or params.prompt_embeds or params.negative_prompt_embeds:
                is_negative_given = bool(negative_prompt or params.negative_prompt_embeds)
                one_pass = guidance.one_pass and not is_negative_given and self.guides_in_one_pass(guidance.scale)
                own = replace(guidance, one_pass=one_pass)
                if one_pass:
                    negative_prompt = prompt  # there is no second prediction: encode no other text
                elif guidance.style:
                    plain = texts_without_style(captions or (prompt,), negative_prompt)
            rows.append((own, prompt, negative_prompt, captions, plain))
            texts.update(dict.fromkeys((prompt, negative_prompt, *captions, *plain)))
        embeddings, mask = self.encode(list(texts))
        of_text = {}
        for text, embedding, length in zip(texts, embeddings, mask.sum(1).tolist(), strict=True):
            of_text[text] = embedding[:length]
        conditionings = []
        for i, (own, prompt, negative_prompt, captions, plain) in enumerate(rows):
            embeds, negative_embeds = of_text[prompt], of_text[negative_prompt]
            if params.prompt_embeds:
                embeds = params.prompt_embeds[i].to(embeds)
            if params.negative_prompt_embeds:
                negative_embeds = params.negative_prompt_embeds[i].to(embeds)
            conditioning = TextConditioning(
                embeds,
                negative_embeds,
                tuple(map(of_text.__getitem__, captions)),
                tuple(map(of_text.__getitem__, plain)),
            )
            conditionings.append((own, conditioning))
        return conditionings

    # ---- steps ----

    def _get_stepper(
        self,
        sampler: str | AnyScheduler | None,
        num_inference_steps: int,
        *,
        strength: float = 1.0,
        guidance: Guidance | None = None,
        restart_time: float | None = None,
    ) -> Stepper:
        """Return the stepper of a named sampler, of a scheduler, or of the pipeline's own scheduler.

        Args:
            sampler: a key of SAMPLERS, a scheduler, or None.
            num_inference_steps: 1 or more.
            strength: share of the steps that are taken, the last ones.
            guidance: of a run from pure noise, for which StudioScheduler may have a fitted table. None: use no table.
            restart_time: see `StudioScheduler.plan`. Other samplers, and runs of one step, do without.
        """
        unet, device = self.unet, self._execution_device
        key = (unet, self.scheduler, sampler, num_inference_steps, strength, guidance, restart_time, device)
        if key in self._steppers:  # pictures share steppers, which have no state
            return self._steppers[key]
        if sampler == "studio":
            scheduler = self._get_studio_sampler()
        elif isinstance(sampler, str):
            scheduler = make_sampler(sampler, self.scheduler.config)
        else:
            scheduler = sampler or self.scheduler
        begin = num_inference_steps - max(int(num_inference_steps * strength), 1)
        if not isinstance(scheduler, StudioScheduler):
            stepper = DiffusersStepper.spaced(scheduler, num_inference_steps, device, begin=begin)
        elif (table := self._find_table(scheduler, num_inference_steps, guidance)) is not None:
            stepper = StudioStepper(scheduler, table=table)
        elif restart_time is not None and num_inference_steps > 1:
            stepper = StudioStepper(scheduler, num_inference_steps, restart_time=restart_time)
        else:
            stepper = StudioStepper(scheduler, num_inference_steps, begin=begin)
        if len(self._steppers) == MAX_STEPPERS:
            del self._steppers[next(iter(self._steppers))]  # the oldest
        self._steppers[key] = stepper
        return stepper

    def _get_finishing_stepper(self, num_steps: int) -> Stepper:
        """Return the stepper of a super-resolution stage that follows another stage.

        A single step begins half way, from the enlarged picture under noise: from noise alone it would leave grain.
        """
        return self._get_stepper("studio", max(num_steps, 2), strength=0.5 if num_steps == 1 else 1.0)

    def _plan_doublings(
        self, size: tuple[int, int], factor: int, noise_level: float = FINISHING_NOISE
    ) -> tuple[StageSpec, ...]:
        """Return the upscaler's stages, of one call each, that make a result of `size` (H, W) `factor` times as large.

        factor: a power of 2. noise_level: input of the network, which removes noise of this level.
        """
        assert self.upscaler is not None
        specs, (height, width) = [], size
        for _ in range(factor.bit_length() - 1):
            height, width = 2 * height, 2 * width
            specs.append(
                StageSpec(
                    size=(height, width),
                    stepper=self._get_stepper("studio", 1),
                    tile_size=self.upscaler.config.window_size,
                    component="upscaler",
                    noise_level=noise_level,
                )
            )
        return tuple(specs)

    def _find_table(
        self, scheduler: StudioScheduler, num_inference_steps: int, guidance: Guidance | None
    ) -> SolverTable | None:
        """Return the solver table fitted to this network, number of steps and guidance; None if there is none."""
        if guidance is None or (guidance.scale != 1 and (guidance.start, guidance.stop) != (0, 1)):
            return None
        table = scheduler.tables.find(num_inference_steps, guidance.scale)
        return table if table is not None and scheduler.tables.model == fingerprint(self.unet) else None

    def _get_studio_sampler(self) -> AnyScheduler:
        """Return the sampler "studio" for the present scheduler. It is made once: steppers do not change it."""
        if self.scheduler not in self._studio_samplers:
            self._studio_samplers = {self.scheduler: make_sampler("studio", self.scheduler.config)}
        return self._studio_samplers[self.scheduler]

    def denoise_step(self, rows: Sequence[SampleState]) -> None:
        """Advance pictures of any task, sampler and number of steps by one step; they change in place.

        A picture larger than its stage's tile size is predicted in tiles, which are blended. Tiles of one size share a
        network call.

        Raises:
            ValueError: a picture is finished.
        """
        remaining, steps = list(rows), {id(row): row.step for row in rows}
        while remaining:
            self.denoise_call(remaining)
            remaining = [row for row in remaining if row.step == steps[id(row)]]

    def denoise_call(self, rows: Sequence[SampleState]) -> None:
        """Call the network once with each picture's next tiles; see `sampling.batched_call.denoise_call`."""
        networks = {"unet": self.unet}
        if self.upscaler is not None:
            networks["upscaler"] = self.upscaler
        denoise_call(networks, rows)

    @torch.no_grad()
    def decode(self, row: SampleState) -> Image.Image:
        """Return the picture as it is: finished, or as x0 is predicted now. RGB, or RGBA where it has transparency.

        Raises:
            ValueError: no step is taken yet.
        """
        values, output = row.sample if row.finished else row.pred_original_sample, row.output
        if values is None:
            raise ValueError("a row that has not taken a step has no picture yet")
        if output.low_res is not None:
            values = back_project(values[None].clamp(-1, 1), output.low_res.to(values.device))[0]
        height = max(round(output.crop[0] * values.shape[1]), 1)
        width = max(round(output.crop[1] * values.shape[2]), 1)
        picture = tensor_to_image(values[:, :height, :width])
        if output.area is not None:
            return output.area.paste_back(picture)
        if picture.size != output.size:
            picture = picture.resize(output.size, Image.Resampling.BICUBIC)
        if output.alpha is not None:
            picture.putalpha(output.alpha)
        return picture


def image_to_tensor(picture: Image.Image | np.ndarray) -> torch.Tensor:
    """Return RGB, or (H, W, 3) uint8, as (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def tensor_to_image(picture: torch.Tensor) -> Image.Image:
    """Return (3, H, W) in [-1, 1], clipped, as RGB."""
    values = torch.empty(picture.shape, dtype=torch.uint8, device=picture.device)
    for strip in split_rows(*picture.shape[1:]):
        values[:, strip] = ((picture[:, strip].clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
