"""The endpoints /forward_noise and /reverse_trace."""

from __future__ import annotations

import gradio as gr
from PIL import Image

from studio.api.jobs import output_file, uploaded_image
from studio.engine.job import JobRejected
from studio.services.context import AppContext
from studio.services.noise.data_uris import image_from_uri
from studio.services.noise.params import NoisedParams, RunParams, read_params


def add_noise_endpoints(context: AppContext) -> None:
    """Add the endpoints to the app that is being built."""
    service = context.noise

    def forward_noise(
        image: gr.FileData,
        t: int = 500,
        schedule: str = "model",
        size: int = 64,
        seed: int = 0,
        standardize: bool = False,
        space: str = "pixels",
        model: str = "",
    ) -> tuple[gr.FileData, dict]:
        """Add noise to a picture, x_t = alpha x0 + sigma eps. Return it as a PNG file with its numbers: alpha, sigma,
        alpha_bar, beta, log_snr, snr_db, mean and variance measured and expected, histogram.

        Args:
            image: any picture; its middle square is used
            t: train step, 0 (nearly clean) to 999 (noise)
            schedule: model, linear, scaled-linear or cosine
            size: side in px, or of the latents, one of 16, 32, 64, 128
            seed: of the noise, 0 to 4294967295
            standardize: bring the picture to mean 0 and variance 1 first; without effect on latents
            space: pixels, or latents of a loaded latent model, which are shown by a linear map
            model: id of the latent model; omitted, any loaded one
        """
        values = {
            "t": t,
            "schedule": schedule,
            "size": size,
            "seed": seed,
            "standardize": standardize,
            "space": space,
            "model": model,
        }
        try:
            picture = uploaded_image(image, "image")
            noised, numbers = service.noised_picture(picture, read_params(NoisedParams, values))
        except (ValueError, ArithmeticError, OSError) as problem:
            raise gr.Error(str(problem), print_exception=False) from problem
        return _png_file(noised, f"noise-{numbers['t']}.png"), numbers

    def reverse_trace(
        prompt: str,
        negative_prompt: str = "",
        steps: int = 10,
        guidance: float = 3.0,
        sampler: str = "studio",
        seed: int | None = None,
        style_emphasis: bool = False,
        model: str = "",
        width: int | None = None,
        height: int | None = None,
        spacing: str = "",
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio passes it
    ) -> tuple[gr.FileData, dict]:
        """Generate one picture and return how: a PNG strip of the predictions x0, one frame per step, and for each
        step its noise level, the scheduler's weights and the arithmetic written out.

        Args:
            prompt: what to paint
            negative_prompt: what to avoid
            steps: denoising steps, 1 to 1000; beyond 64 only some steps are kept
            guidance: how closely to follow the prompt, 0 to 30
            sampler: one of the model's: studio, ddim, ddpm, dpm++2m, unipc, euler or heun; latent models have more
            seed: 0 to 4294967295; omitted, it is random
            style_emphasis: follow the words of the style more closely
            model: id of a model; omitted, the default one
            width: of the picture in px, for models that paint any size
            height: of the picture in px, for models that paint any size
            spacing: of the noise levels, one that the sampler has; omitted, the model's own
        """
        values = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "steps": steps,
            "guidance": guidance,
            "sampler": sampler,
            "seed": seed,
            "style_emphasis": style_emphasis,
            "model": model,
            "width": width,
            "height": height,
            "spacing": spacing,
        }
        try:
            run_request = read_params(RunParams, values).request()
            run = service.runs.run_and_wait(run_request, context.owners.of_call(request))
            stages = service.runs.stages(run)
        except (JobRejected, ValueError) as problem:
            raise gr.Error(str(problem), print_exception=False) from problem
        info = {
            "seed": run_request.seed,
            "prompt": run.caption,
            "sampler": sampler,
            "model": run.trace.model.id,
            "stages": [{name: stage[name] for name in ("width", "height", "steps")} for stage in stages],
        }
        return _png_file(image_from_uri(stages[0]["sheets"]["x0"]), "trace.png"), info

    gr.api(forward_noise, api_name="forward_noise", concurrency_limit=None)
    gr.api(reverse_trace, api_name="reverse_trace", concurrency_limit=None)


def _png_file(image: Image.Image, name: str) -> gr.FileData:
    """Store a picture where Gradio serves files from, and return its description."""
    from gradio.processing_utils import save_pil_to_cache
    from gradio.utils import get_upload_folder

    path = save_pil_to_cache(image, get_upload_folder(), format="png")
    return output_file(path, name)
