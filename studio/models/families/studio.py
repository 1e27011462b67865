"""The bundled pipeline as the engine's Sampler: a request of any task becomes rows, and rows become pictures.

Knows requests and the four pipelines over one set of components; knows nothing of queues, files of the user, or
pages. Importing it is cheap: torch and diffusers come with the pipeline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from studio.engine.requests import Denoise, Inpaint, Request, TextToImage
from studio.models.folder import load_pipeline

if TYPE_CHECKING:
    from studio.diffusion.sampling.state import SampleState


def load_backend(folder: str | Path, device: str = "auto") -> StudioBackend:
    """The sampler of a model folder; see `load_pipeline`. Raises ModelProblem."""
    return StudioBackend(load_pipeline(folder, device))


def reserve_torch_threads() -> None:
    """Gives torch's threads to the thread that calls it; others that begin to compute afterwards do so by themselves.

    Each thread that computes has OpenMP threads of its own. Where they are more than there are cores, all of them sleep
    between operations, for as long as any of those threads lives: a decoded picture, or a look into the network, would
    make every network call after it half as long again.
    """
    import torch

    global _threads
    found = torch.get_num_threads()  # before anything is set: the first question in a thread settles its number
    _threads = _threads or found
    torch.set_num_threads(_threads)
    # What a thread sets is its own number, and that which later ones begin with.
    other = threading.Thread(target=torch.set_num_threads, args=(1,))
    other.start()
    other.join()


_threads = 0  # of torch, as it chose them


class StudioBackend:
    """Obeys studio.engine.backend.Sampler over a StudioTextToImagePipeline and three more of its components."""

    def __init__(self, pipeline: Any):
        from studio.diffusion.guidance import STYLE_EMPHASIS
        from studio.diffusion.pipelines import StudioDenoisePipeline, StudioInpaintPipeline, StudioUpscalePipeline

        self.pipeline, self._emphasis = pipeline, STYLE_EMPHASIS
        # Of the components, not `from_pipe`, which warns of modules kept in float32 where there are none.
        self._inpaint = StudioInpaintPipeline(**pipeline.components)
        self._upscale = StudioUpscalePipeline(**pipeline.components)
        self._denoise = StudioDenoisePipeline(**pipeline.components)
        self._tokenizer = threading.Lock()  # a fast tokenizer keeps settings of a call inside: one thread at a time

    @property
    def device(self) -> str:
        """Where the network is: "cpu", "cuda:0" ..."""
        return str(self.pipeline.device)

    def prepare(self, request: Request) -> list[SampleState]:
        """One row a picture, by `request.seeds` in order."""
        count = request.count
        prompts = request.captions
        images = None if request.pictures().get("image") is None else [request.image] * count
        shared = {
            "negative_prompts": [request.negative_prompt] * count if request.negative_prompt else None,
            "num_inference_steps": request.steps,
            "guidance_scale": float(request.guidance),
            "seeds": request.seeds,
        }
        with self._tokenizer:
            if isinstance(request, Denoise):
                if request.method == "mean":
                    shared["num_inference_steps"] = 1
                return self._denoise.prepare(images, [request.sigma] * count, prompts, **shared)
            shared["sampler"] = request.sampler
            if isinstance(request, TextToImage):
                return self.pipeline.prepare(
                    prompts,
                    **shared,
                    size=request.resolution,
                    images=images,
                    strength=float(request.strength),
                    one_pass=request.one_pass,
                    style_emphasis=self._emphasis if request.style_emphasis else 0.0,
                )
            if isinstance(request, Inpaint):
                return self._inpaint.prepare(
                    prompts,
                    images,
                    [request.mask] * count,
                    **shared,
                    whole=request.area == "whole",
                    grow=request.grow,
                    feather=request.feather,
                    invert=request.invert,
                )
            return self._upscale.prepare(
                images, request.scale, prompts, request.noise_level, **shared, size=request.target
            )

    def denoise_step(self, rows: Sequence[SampleState]) -> None:
        """One network call for rows of one `call_shape`; they change in place, or, if it raises, not at all.

        Where it fails after the network was called, a picture of more windows than a call has begins its step again.
        """
        restore = [_snapshot(row) for row in rows]
        try:
            self.pipeline.denoise_call(rows)
            device = rows[0].sample.device  # `pipeline.device` goes through all modules, a tenth of a small call's time
            if device.type in ("cuda", "mps"):
                import torch

                # the call's time is what the schedule goes by, and its errors belong here
                torch.cuda.synchronize(device) if device.type == "cuda" else torch.mps.synchronize()
        except Exception:
            for put_back in restore:
                put_back()
            raise

    def decode(self, row: SampleState) -> Image.Image:
        """The row's picture, RGB, or RGBA where what it was made from is."""
        return self.pipeline.decode(row)

    def truncated(self, text: str) -> str:
        """The end of the text that the model does not read, "" if there is none."""
        with self._tokenizer:
            return self.pipeline.truncated(text)


def _snapshot(row: SampleState) -> Callable[[], None]:
    """What puts a row back as it is now. Tensors are never written to, so that references are enough."""
    stage, fields, drawn = row.stage, dict(vars(row)), row.generator.get_state()
    stage_fields, steps_fields = dict(vars(stage)), _shallow(stage.steps)
    scheduler = getattr(stage.steps, "scheduler", None)  # a stock sampler keeps its run's state inside
    scheduler_fields = _shallow(scheduler) if scheduler is not None else {}

    def put_back() -> None:
        for thing, values in (
            (row, fields),
            (stage, stage_fields),
            (stage.steps, steps_fields),
            (scheduler, scheduler_fields),
        ):
            if thing is not None:
                vars(thing).clear()
                vars(thing).update(values)
        row.generator.set_state(drawn)

    return put_back


def _shallow(thing: Any) -> dict[str, Any]:
    """Its attributes, lists copied."""
    return {name: list(value) if isinstance(value, list) else value for name, value in vars(thing).items()}
