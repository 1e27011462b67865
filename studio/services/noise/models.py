"""The loaded models that the noise service looks into. What they compute runs on the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from studio.engine.backend import Backend
from studio.engine.checks import quote_value
from studio.engine.engine import Engine
from studio.engine.trace import TraceModel
from studio.services.noise.runs import OpenRun

LOADING_SECONDS = 120.0
NO_LATENT_MODEL = (
    "No latent model is loaded. Choose a Stable Diffusion model in the menu of models, paint a picture with it, "
    "and try again."
)


class NoiseModels:
    """Gives loaded models, and computes with them. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._inspector: tuple[Any, Any] | None = None  # the bundled pipeline, and one for inspection over its weights

    def wait(self) -> None:
        """Wait for the first model. It imports torch and diffusers, which no second thread may import meanwhile."""
        self._engine.wait_until_ready(LOADING_SECONDS)

    @contextmanager
    def borrow(self, model: TraceModel) -> Iterator[Any]:
        """Give the loaded model of a trace and keep it loaded inside a `with` statement.

        Raises ValueError if it is not loaded, or another model has its id now.
        """
        with self._engine.borrow(model.id) as backend:
            name = f"The model {quote_value(model.id)}" if model.id else "The model of this run"
            if backend is None:
                raise ValueError(f"{name} is not loaded. Paint a picture with it, and try again.")
            if backend.trace_model.space != model.space:
                raise ValueError(f"{name} is gone: another model has its place.")
            yield backend

    @contextmanager
    def borrow_latent(self, model_id: str) -> Iterator[Any]:
        """Give the loaded latent model of this id, or else any loaded one. Raises ValueError if there is none."""
        for each in (model_id, *self._engine.loaded):
            with self._engine.borrow(each) as backend:
                if backend is not None and backend.trace_model.space == "latent":
                    yield backend
                    return
        raise ValueError(NO_LATENT_MODEL)

    def scheduler_config(self, model_id: str = "") -> Any | None:
        """Return the config of a loaded model's scheduler; None if the model is not loaded."""
        backend = self._engine.backend(model_id)
        if backend is None:
            return None
        return backend.trace_model.scheduler_config or getattr(_scheduler(backend), "config", None)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Let one thread compute at a time: computations take memory, and the engine needs the processor."""
        from studio.models.loader import settle_torch_threads

        with self._lock:
            settle_torch_threads()
            yield

    # ---- latents ----

    def encode(self, backend: Any, picture: Image.Image) -> np.ndarray:
        """Return the latents (C, h, w) of an RGB picture, float32."""
        with self._computing():
            return _as_array(backend.encode_picture(picture))

    def decode(self, backend: Any, latents: np.ndarray) -> Image.Image:
        """Return the picture of latents (C, h, w). Raises ArithmeticError if the VAE computes no numbers."""
        from studio.lab.latents import as_tensor

        with self._computing():
            return backend.decode_latents(as_tensor(latents))

    # ---- the network inside ----

    def inspect(self, run: OpenRun, stage: int, step: int) -> dict[str, Any]:
        """Return what the network did in a stage of a run: the bundled model's in steps all over the stage.

        step: index in the stage, of a latent model's run. Raises ValueError.
        """
        from studio.lab.views.inspection import inspection_view

        with self.borrow(run.trace.model) as backend, self._computing():
            if run.is_latent:
                return self._inspect_latent(backend, run, stage, run.check_step(stage, step))
            pipeline = self._inspection_pipeline(backend)
            return inspection_view(pipeline, run.caption, run.trace, stage, denoised=run.is_denoised)

    def _inspect_latent(self, backend: Any, run: OpenRun, number: int, index: int) -> dict[str, Any]:
        from studio.lab.attention import share_weights
        from studio.lab.latent_attention import bind_prompt, replay_latent_step
        from studio.lab.views.inspection import latent_inspection_view

        stage = run.trace.stages[number]
        step = list(stage)[index]
        scale = backend.networks.vae_scale
        height, width = (side * scale for side in step.x_t.shape[1:])
        unet = share_weights(backend.networks.unet)
        predict = bind_prompt(unet, backend.encode_text(run.caption, width=width, height=height), stage, step)
        tokenizer = backend.loaded.tokenizers[-1]
        inspection = replay_latent_step(unet, predict, tokenizer, run.caption, step)
        return latent_inspection_view(inspection, index, unet.config.in_channels)

    def _inspection_pipeline(self, backend: Backend) -> Any:
        """Return a pipeline over the weights of the bundled model's, for inspection alone. Raises ValueError."""
        from studio.lab.attention import inspection_pipeline

        pipeline = getattr(backend, "pipeline", None)
        if pipeline is None:
            raise ValueError("The network of this model cannot be inspected.")
        if self._inspector is None or self._inspector[0] is not pipeline:
            self._inspector = (pipeline, inspection_pipeline(pipeline))
        return self._inspector[1]


def _scheduler(backend: Backend) -> Any:
    return getattr(getattr(backend, "pipeline", None), "scheduler", None)


def _as_array(values: Any) -> np.ndarray:
    return values.float().cpu().numpy() if hasattr(values, "cpu") else np.asarray(values, np.float32)
