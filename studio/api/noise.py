"""The endpoints /forward_noise and /reverse_trace, for gradio_client and any other program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from studio.api.jobs import uploaded_image
from studio.engine.job import JobRejected
from studio.engine.requests import InvalidRequest
from studio.services.build_request import as_int
from studio.services.noise import NoiseService, checked_seed, picture_of, run_request

if TYPE_CHECKING:
    from studio.services.context import AppContext


def add_noise_endpoints(studio: AppContext) -> None:
    """/forward_noise and /reverse_trace, for gradio_client and any other program."""
    room = NoiseService(studio)

    def forward_noise(
        image: gr.FileData,
        t: int = 500,
        schedule: str = "model",
        size: int = 64,
        seed: int = 0,
        standardize: bool = False,
    ) -> tuple[gr.FileData, dict]:
        """Puts noise on a picture, x_t = alpha x0 + sigma eps, and returns it as a PNG file with its numbers: alpha,
        sigma, alpha_bar, beta, log_snr, snr_db, mean and variance measured and expected, histogram.

        Args:
            image: any picture; its middle square is used
            t: train step, 0 (nearly clean) to 999 (noise)
            schedule: model, linear, scaled-linear or cosine
            size: side in px, one of 16, 32, 64, 128
            seed: of the noise, 0 to 4294967295
            standardize: bring the picture to mean 0 and variance 1 first
        """
        room.await_imports()
        from studio.lab.views import forward_numbers

        try:
            picture = uploaded_image(image, "image")
            noised, numbers = forward_numbers(
                picture, as_int(t), schedule, as_int(size), checked_seed(seed), bool(standardize), room.config
            )
        except (ValueError, OSError) as problem:
            raise gr.Error(str(problem), print_exception=False) from problem
        return _file(noised, f"noise-{int(t)}.png"), numbers

    def reverse_trace(
        prompt: str,
        negative_prompt: str = "",
        steps: int = 10,
        guidance: float = 3.0,
        sampler: str = "studio",
        seed: int | None = None,
        style_emphasis: bool = False,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[gr.FileData, dict]:
        """Paints one picture and returns how: a PNG strip of the predictions x0, a frame a step, and for each step the
        noise level, the scheduler's weights and the arithmetic written out.

        Args:
            prompt: what to paint
            negative_prompt: what to keep away from
            steps: denoising steps, 1 to 1000; of more than 64 not every one is kept
            guidance: how closely to follow the prompt, 0 to 30
            sampler: studio, ddim, ddpm, dpm++2m, unipc, euler or heun
            seed: 0 to 4294967295; left out, one is drawn
            style_emphasis: follow the words for the style more closely, by a third row
        """
        room.await_imports()
        from studio.lab.views import reverse_view

        asked = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "steps": steps,
            "guidance": guidance,
            "sampler": sampler,
            "seed": seed,
            "style_emphasis": style_emphasis,
        }
        try:
            painted = run_request(asked)
            run = room.made(painted, room.owner(request, None))
            stages = reverse_view(run.trace, run.sampler, room.config)
        except (InvalidRequest, JobRejected, ValueError) as problem:
            raise gr.Error(str(problem), print_exception=False) from problem
        strip = picture_of(stages[0]["sheets"]["x0"])
        info = {
            "seed": painted.seed,
            "prompt": run.caption,
            "sampler": sampler,
            "stages": [{"width": s["width"], "height": s["height"], "steps": s["steps"]} for s in stages],
        }
        return _file(strip, "trace.png"), info

    gr.api(forward_noise, api_name="forward_noise", concurrency_limit=None)
    gr.api(reverse_trace, api_name="reverse_trace", concurrency_limit=None)


def _file(image: Image.Image, name: str) -> dict[str, Any]:
    from gradio.processing_utils import save_pil_to_cache
    from gradio.utils import get_upload_folder

    path = save_pil_to_cache(image, get_upload_folder(), format="png")
    return gr.FileData(path=path, orig_name=name, mime_type="image/png").model_dump()
