"""Text to image, and image to image: the same run begun from a picture with noise on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from diffusers import SchedulerMixin
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
    make_generators,
    repeat_each,
    to_pil_images,
)
from studio.diffusion.pipelines.base import OutputSpec, StudioPipeline, image_to_tensor
from studio.diffusion.sampling.state import SampleState, SamplingStage, StageSpec
from studio.imaging.areas import Fit, fit_to_side
from studio.imaging.modes import flatten_alpha, normalize_image

FEW = 4  # steps of a run whose picture is wanted soon: it is finished in one call a stage
FACTORS = (1, 2, 4, 8, 16)  # of the size at which words become a picture
FINISHED = 4  # at most so many times that size, where no size is asked for


class StudioTextToImagePipeline(StudioPipeline):
    """Paints from words, or from words and a picture to vary."""

    def prepare(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str] | None = None,
        num_inference_steps: int = 10,
        guidance_scale: float = 3.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        seeds: Sequence[int] | None = None,
        generators: Sequence[torch.Generator] | None = None,
        sampler: str | SchedulerMixin | None = None,
        size: int | None = None,
        finishing_steps: int | None = None,
        images: Sequence[Image.Image] | None = None,
        strength: float = 0.6,
        one_pass: bool = False,
        style_emphasis: float = 0.0,
    ) -> list[SampleState]:
        """One row a prompt.

        Args:
            prompts: "" paints anything. One of several things is laid out: see `studio.diffusion.composition`.
            negative_prompts: what guidance leads away from; one for each prompt.
            num_inference_steps: 1 to the number of train steps; Heun makes 2 N - 1 network calls of it.
            guidance_scale, guidance_interval: see `studio.diffusion.guidance.Guidance`. A fitted solver has its own
                share of the scale for each call.
            seeds: one for each prompt; a picture depends on its seed and its request alone.
            generators: in place of seeds.
            sampler: a name from `studio.diffusion.schedulers.samplers.SAMPLERS`, a scheduler, or None for the pipeline's own.
            size: shorter side of the picture in px, one of `sizes`; what is larger than `sample_size` is finished by
                the same network's super-resolution. None: `default_size`, or as the picture that is begun from.
            finishing_steps: network calls of each stage of super-resolution, where there is any. None: 2, or 1 after a
                run of no more than FEW steps.
            images: pictures to begin from, one for each prompt; the result is of the same size, unless `size` says.
            strength: in (0, 1], with images: the share of the steps that are taken, as in diffusers.
            one_pass: guide by the network's own input where it can (see `guides_in_one_pass`), not by a second row.
            style_emphasis: how much more the words for the style ("..., flat style") count, as a share of the guidance;
                above 0 that takes a third row where such words are said and a second one is there. Usual:
                `studio.diffusion.guidance.STYLE_EMPHASIS`.

        Raises:
            ValueError: naming what does not fit and what is allowed.
        """
        if size is not None and size not in self.sizes:
            raise ValueError(f"size is {size}; it must be one of {', '.join(map(str, self.sizes))}")
        if not 0 < strength <= 1:
            raise ValueError(f"strength is {strength}; it must be above 0 and at most 1")
        if images is not None and len(images) != len(prompts):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts; there must be one for each")
        if finishing_steps is None:
            finishing_steps = 1 if num_inference_steps <= FEW else 2
        seeds, generators = make_generators(seeds, generators, len(prompts))
        stages, finishes, then, layouts = [], [], [], []
        for i, generator in enumerate(generators):
            picture = None if images is None else normalize_image(images[i])
            square = picture is None or picture.width == picture.height
            layout = parse_layout(prompts[i], self.sample_size) if square else None
            side, begun, finish = self._begun(picture, size, layout.side if layout else self.sample_size)
            height, width = (self.sample_size,) * 2 if layout or begun is None else begun.shape[1:]
            stages.append(
                partial(
                    self._first,
                    (layout.side,) * 2 if layout else (height, width),
                    generator,
                    sampler,
                    num_inference_steps,
                    1.0 if begun is None else strength,
                    begun,
                    layout,
                )
            )
            finishes.append(finish)
            options = {"layout": layout, "begun": begun is not None}
            then.append(
                self._finishing((height, width), side // self.sample_size, finishing_steps, generator, **options)
            )
            layouts.append(layout)
        guidance = Guidance(guidance_scale, *guidance_interval, one_pass=one_pass, style=style_emphasis)
        return self._rows(stages, finishes, prompts, negative_prompts, guidance, seeds, generators, then, layouts)

    def _begun(
        self, picture: Image.Image | None, size: int | None, scale: int
    ) -> tuple[int, torch.Tensor | None, OutputSpec]:
        """The shorter side to finish at, the picture (3, H, W) to begin from, its shorter side `scale`, and what the
        result is to be."""
        if picture is None:
            side = self.default_size if size is None else size
            return side, None, OutputSpec((side, side))
        small: Fit = fit_to_side(picture.size, scale)
        values = image_to_tensor(flatten_alpha(picture).resize(small.size, Image.Resampling.BOX))[None]
        pad = (0, small.padded[0] - small.size[0], 0, small.padded[1] - small.size[1])
        values = torch.nn.functional.pad(values, pad, mode="replicate")[0]
        crop = (small.size[1] / small.padded[1], small.size[0] / small.padded[0])
        if size is not None:
            scale = size / min(small.padded)
            width, height = (max(round(length * scale), 1) for length in small.size)
            return size, values, OutputSpec((height, width), crop)
        allowed = [side for side in self.sizes if side <= FINISHED * self.sample_size]
        side = next((side for side in allowed if side >= min(picture.size)), allowed[-1])
        return side, values, OutputSpec(picture.size[::-1], crop)

    def _first(
        self,
        size: tuple[int, int],
        generator: torch.Generator,
        sampler: str | SchedulerMixin | None,
        num_inference_steps: int,
        strength: float,
        begun: torch.Tensor | None,
        layout: Layout | None,
        guidance: Guidance,
    ) -> SamplingStage:
        steps = self._steps(sampler, num_inference_steps, strength, fitted_for=guidance if begun is None else None)
        return self._stage(
            Task.TEXT_TO_IMAGE,
            Condition(size),
            generator,
            guidance,
            steps,
            picture=begun,
            constraints=(self._together(layout, begun),) if layout else (),
            layout=layout,
        )

    def _finishing(
        self,
        size: tuple[int, int],
        factor: int,
        num_inference_steps: int,
        generator: torch.Generator,
        layout: Layout | None,
        begun: bool,
    ) -> tuple[StageSpec, ...]:
        """The stages that make a painted picture so many times as large as `size`: by 4 last, where that is exact.

        What has a layout is sharpened to twice its canvas first, each thing by its own words where the network's
        windows allow it: larger than it is asked for, or nearly as large.
        """
        stages = []
        done = 1
        if layout and factor > 1:
            done, twice = min(factor, 4), layout.doubled
            options = {"layout": twice, "begun": begun} if twice.window == self.window_size else {}
            stages.append(((twice.side, twice.side), options))
        while done < factor:
            done *= 2 if (factor // done) in (2, 8) else 4
            stages.append(((size[0] * done, size[1] * done), {}))
        return tuple(
            StageSpec(
                partial(self._sharpened, larger, num_inference_steps, generator, **options),
                num_inference_steps,
            )
            for larger, options in stages
        )

    @property
    def default_size(self) -> int:
        """Side in px of the pictures that are made where no size is asked for."""
        return max(self.sample_size, self.window_size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides in px that can be asked for."""
        return tuple(self.sample_size * factor for factor in FACTORS)

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
        image: Pictures | None = None,
        strength: float = 0.6,
        one_pass: bool = False,
        style_emphasis: float = 0.0,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Paint `num_images_per_prompt` pictures of each prompt, or as many variations of an image at a strength;
        arguments as in diffusers and `prepare`.

        A list of generators, one a picture, makes each picture independent of its batch; one generator draws for all
        in order. output_type: "pil", or "np" (B, H, W, 3) or "pt" (B, 3, H, W) in [0, 1].
        """
        images = None if image is None else to_pil_images(image, "image")
        if images is not None and (prompt is None or isinstance(prompt, str)):
            prompt = [prompt or ""] * len(images)
        prompts, negatives, generators = expand_prompts(prompt, negative_prompt, generator, num_images_per_prompt)
        rows = self.prepare(
            prompts,
            negatives,
            num_inference_steps,
            guidance_scale,
            guidance_interval,
            generators=generators,
            size=size,
            images=None if images is None else repeat_each(images, len(prompts), "image"),
            strength=strength,
            one_pass=one_pass,
            style_emphasis=style_emphasis,
        )
        return self._run(rows, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)
