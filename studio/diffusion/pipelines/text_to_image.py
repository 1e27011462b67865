"""Text to image, and image to image: the same run begins from a picture under noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.composition import Layout, parse_layout
from studio.diffusion.conditioning import Condition, Task
from studio.diffusion.guidance import Guidance
from studio.diffusion.pipelines.arguments import (
    Generators,
    Pictures,
    Prompts,
    expand_prompts,
    repeat_each,
    to_pil_images,
    to_size,
)
from studio.diffusion.pipelines.base import OutputSpec, StudioPipeline, image_to_tensor
from studio.diffusion.pipelines.loop import run_loop
from studio.diffusion.pipelines.params import FEW_STEPS, TextToImageParams
from studio.diffusion.sampling.state import SampleState, SamplingStage, StageSpec
from studio.diffusion.sampling.steppers import Stepper
from studio.diffusion.tiling import pad_to_tile
from studio.imaging.areas import fit_to_side
from studio.imaging.modes import flatten_alpha, normalize_image

SIZE_FACTORS = (1, 2, 4, 8, 16)  # sizes that can be asked for, as multiples of `sample_size`
MAX_DEFAULT_FACTOR = 4  # the largest of them where an image is given and no size


class StudioTextToImagePipeline(StudioPipeline):
    """Paints from text, or from text and a picture to vary."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides in px that can be asked for."""
        return tuple(self.sample_size * factor for factor in SIZE_FACTORS)

    @property
    def default_size(self) -> int:
        """Side in px where no size is asked for."""
        return max(self.sample_size, self.window_size)

    def prepare(self, prompts: Sequence[str], **options: Any) -> list[SampleState]:
        """Return one row a prompt, before its first step.

        Args:
            prompts, options: see `TextToImageParams`.

        Raises:
            ValueError: a value does not fit; the text names it and what is allowed.
        """
        params = TextToImageParams(prompts=prompts, **options)
        if params.size is not None and params.size not in self.sizes:
            raise ValueError(f"size is {params.size}; it must be one of {', '.join(map(str, self.sizes))}")
        seeds, generators = params.make_generators()
        pictures = [None] * len(prompts) if params.images is None else list(map(normalize_image, params.images))
        layouts = []
        for prompt, picture in zip(prompts, pictures, strict=True):
            is_square = picture is None or picture.width == picture.height
            layouts.append(parse_layout(prompt, self.sample_size) if is_square else None)
        texts = self._condition_on_text(params, layouts)
        rows = []
        for i, (guidance, text) in enumerate(texts):
            picture, layout = pictures[i], layouts[i]
            if picture is None:
                side, original = params.size or self.default_size, None
                output = OutputSpec((side, side))
            else:
                side, original, output = self._fit_image(picture, params.size, layout)
            stepper = self._get_stepper(
                params.sampler,
                params.num_inference_steps,
                strength=1.0 if original is None else params.strength,
                guidance=guidance if original is None else None,
            )
            noise = None if params.latents is None else params.latents[i]
            stage = self._start_first_stage(stepper, guidance, generators[i], original, layout, noise)
            rows.append(
                SampleState(
                    stage,
                    text,
                    generators[i],
                    seeds[i],
                    output,
                    next_stages=self._plan_finishing(params, side // self.sample_size, original, layout),
                    train_steps=self.scheduler.config.num_train_timesteps,
                )
            )
        return rows

    def _fit_image(
        self, picture: Image.Image, size: int | None, layout: Layout | None
    ) -> tuple[int, torch.Tensor, OutputSpec]:
        """Return the shorter side of the last stage, the picture (3, H, W) to begin from, and the output."""
        side = layout.side if layout else self.sample_size
        fitted = fit_to_side(picture.size, side)
        small = flatten_alpha(picture).resize(fitted.size, Image.Resampling.BOX)
        original = pad_to_tile(image_to_tensor(small), side)
        crop = (fitted.size[1] / fitted.padded[1], fitted.size[0] / fitted.padded[0])
        if size is not None:
            scale = size / min(fitted.padded)
            width, height = max(round(fitted.size[0] * scale), 1), max(round(fitted.size[1] * scale), 1)
            return size, original, OutputSpec((width, height), crop)
        size = self.sample_size
        while size < min(picture.size) and size < MAX_DEFAULT_FACTOR * self.sample_size:
            size *= 2
        return size, original, OutputSpec(picture.size, crop)

    def _start_first_stage(
        self,
        stepper: Stepper,
        guidance: Guidance,
        generator: torch.Generator,
        original: torch.Tensor | None,
        layout: Layout | None,
        noise: torch.Tensor | None,
    ) -> SamplingStage:
        device, size = self._execution_device, (self.sample_size, self.sample_size)
        if layout:
            size = (layout.side, layout.side)
        elif original is not None:
            size = (original.shape[1], original.shape[2])
        if noise is not None and noise.shape != (3, *size):
            raise ValueError(f"latents are {tuple(noise.shape)} each; they must be {(3, *size)}")
        return SamplingStage.start(
            Task.TEXT_TO_IMAGE,
            Condition(size),
            generator,
            device,
            guidance=guidance,
            stepper=stepper,
            tile_size=self.sample_size,
            picture=original,
            noise=noise,
            constraints=(layout.background_constraint(original, device),) if layout else (),
            layout=layout,
        )

    def _plan_finishing(
        self, params: TextToImageParams, factor: int, original: torch.Tensor | None, layout: Layout | None
    ) -> tuple[StageSpec, ...]:
        """Return the super-resolution stages that make the first stage's result `factor` times as large.

        Stages enlarge by 4, after one by 2 where that makes the product exact. A layout is first enlarged to twice its
        canvas, each thing by its own caption where the tile size allows it; the result is then scaled to its size.
        """
        if factor == 1:
            return ()
        steps = params.finishing_steps
        if self.upscaler is not None and steps is None:
            if layout:  # its canvas is about twice `sample_size`
                return self._plan_doublings((layout.side, layout.side), max(factor // 2, 2))
            size = (self.sample_size, self.sample_size) if original is None else (original.shape[1], original.shape[2])
            return self._plan_doublings(size, factor)
        if steps is None:
            steps = 1 if params.num_inference_steps <= FEW_STEPS else 2
        stepper = self._get_finishing_stepper(steps)
        height, width = self.sample_size, self.sample_size
        if original is not None and layout is None:
            height, width = original.shape[1:]
        specs, done = [], 1
        if layout:
            done, doubled = min(factor, 4), layout.doubled
            is_tiled_alike = doubled.tile_size == self.window_size
            specs.append(
                StageSpec(
                    size=(doubled.side, doubled.side),
                    stepper=stepper,
                    tile_size=self.window_size,
                    starts_enlarged=steps == 1,
                    layout=doubled if is_tiled_alike else None,
                    keeps_original=original is not None,
                )
            )
        while done < factor:
            done *= 2 if factor // done in (2, 8) else 4
            specs.append(
                StageSpec(
                    size=(height * done, width * done),
                    stepper=stepper,
                    tile_size=self.window_size,
                    starts_enlarged=steps == 1,
                )
            )
        return tuple(specs)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompts = "",
        negative_prompt: Prompts = None,
        num_inference_steps: int = 10,
        guidance_scale: float = 3.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        size: int | None = None,
        height: int | None = None,
        width: int | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        image: Pictures | None = None,
        strength: float = 0.6,
        one_pass: bool = False,
        style_emphasis: float = 0.0,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Paint `num_images_per_prompt` pictures of each prompt, or as many variations of an image.

        Arguments are those of diffusers and of `TextToImageParams`. A list of generators, one a picture, makes each
        picture independent of its batch; a single generator draws for all in order. height and width: both are `size`.
        latents (B, 3, h, w), prompt_embeds and negative_prompt_embeds (B, L, D). output_type: "pil", or "np"
        (B, H, W, 3) or "pt" (B, 3, H, W) in [0, 1], or "latent", samples of the last stage.
        """
        images = None if image is None else to_pil_images(image, "image")
        of_pictures = expand_prompts(
            prompt,
            negative_prompt,
            generator,
            num_images_per_prompt,
            None if images is None else len(images),
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
        )
        count = len(of_pictures["prompts"])
        rows = self.prepare(
            **of_pictures,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            size=to_size(size, width, height),
            images=images and repeat_each(images, count, "image"),
            latents=None if latents is None else list(latents),
            strength=strength,
            one_pass=one_pass,
            style_emphasis=style_emphasis,
        )
        return run_loop(
            self,
            rows,
            guidance_scale=guidance_scale,
            output_type=output_type,
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
