"""What the noise tab and its endpoints ask for, answered by the lab, the engine and the library.

The lab is imported when it is first needed, since importing torch takes seconds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.engine.engine import Engine
from studio.imaging.animation import ANIMATION_TYPES, encode_animation
from studio.imaging.modes import flatten_alpha
from studio.library.store import Library
from studio.models.capabilities import Capabilities
from studio.services.lru_store import LRUStore
from studio.services.noise.data_uris import file_to_uri, image_from_uri
from studio.services.noise.models import NoiseModels
from studio.services.noise.params import (
    AnimationParams,
    CloudParams,
    DecodeParams,
    ForwardParams,
    InspectParams,
    LatentsParams,
    NoisedParams,
    ParamsT,
    StageParams,
    TrainParams,
    check_size,
    read_params,
)
from studio.services.noise.run_service import RunService

ASSETS = Path(__file__).resolve().parents[3] / "assets"
FIRST_VIEW, EXAMPLE_RUN = ASSETS / "noise.json", ASSETS / "noise-run.json"
MAX_TRAININGS = 16  # kept, so that they can continue
MAX_ANIMATION_PIXELS = 40_000_000  # of all frames together


class NoiseService:
    """Answers the noise tab and the noise endpoints. Answers are plain JSON. Thread-safe.

    Methods of the tab's scripts take an object of JSON and answer {"problem": sentence} where it is wrong.

    examples: folder of the shipped pictures. capabilities_of: returns what a model can do.
    runs: what is asked for an owner.
    """

    def __init__(
        self, engine: Engine, library: Library, examples: Path, capabilities_of: Callable[[str], Capabilities]
    ) -> None:
        self.examples = examples
        self._models = NoiseModels(engine)
        self.runs = RunService(engine, library, self._models, capabilities_of)
        self._trainings = LRUStore(MAX_TRAININGS)

    # ---- for the scripts, as `server.<name>(params)` ----

    def first_view(self, params: object) -> dict[str, Any]:
        """Return the shipped forward and 2D views, which need no torch."""
        return _read_shipped(FIRST_VIEW)

    def example_run(self, params: object) -> dict[str, Any]:
        """Return the shipped run."""
        return _read_shipped(EXAMPLE_RUN)

    def forward(self, params: object) -> dict[str, Any]:
        """Return a picture, its noise and all schedules. See `ForwardParams`."""
        return _answer(self._forward, ForwardParams, params)

    def plane_start(self, params: object) -> dict[str, Any]:
        """Return points to learn, and the key of their training. See `CloudParams`."""
        return _answer(self._plane_start, CloudParams, params)

    def plane_train(self, params: object) -> dict[str, Any]:
        """Train, and return where the points go now. See `TrainParams`."""
        return _answer(self._plane_train, TrainParams, params)

    def inspect(self, params: object) -> dict[str, Any]:
        """Return what the network did in a stage of an open run. See `InspectParams`."""
        return _answer(self._inspect, InspectParams, params)

    def channels(self, params: object) -> dict[str, Any]:
        """Return the latents of a stage of an open run channel by channel. See `StageParams`."""
        return _answer(self._channels, StageParams, params)

    def decode(self, params: object) -> dict[str, Any]:
        """Return latents of an open run as a picture, by the model's VAE. See `DecodeParams`."""
        return _answer(self._decode, DecodeParams, params)

    def latents(self, params: object) -> dict[str, Any]:
        """Return a picture beside its latents. See `LatentsParams`."""
        return _answer(self._latents, LatentsParams, params)

    def animate(self, params: object) -> dict[str, Any]:
        """Return an animation as a data URI. See `AnimationParams`."""
        return _answer(self._animate, AnimationParams, params)

    def _forward(self, params: ForwardParams) -> dict[str, Any]:
        self._models.wait()
        from studio.lab.views.forward import forward_view, latent_forward_view

        image = self._picture(params.picture)
        if params.space == "latents":
            with self._latents_of(image, params) as (backend, latents):
                model = backend.trace_model
                return latent_forward_view(latents, model.preview, params.seed, model.scheduler_config)
        return forward_view(image, params.size, params.seed, params.standardize, self._models.scheduler_config())

    def _picture(self, picture: int | str) -> Image.Image:
        """Return an example by its number, or the picture in a data URI. Raises ValueError, OSError."""
        if isinstance(picture, str):
            return image_from_uri(picture)
        examples = sorted(self.examples.glob("*.png"))
        if not examples:
            raise ValueError("The examples are missing.")
        with Image.open(examples[picture % len(examples)]) as file:
            return file.copy()

    @contextmanager
    def _latents_of(self, image: Image.Image, params: ForwardParams | NoisedParams) -> Iterator[tuple[Any, np.ndarray]]:
        """Give the latent model of the parameters, and the latents (C, size, size) of a picture. Raises ValueError."""
        from studio.lab.forward import SIZES, middle_square

        check_size(params.size, SIZES)
        with self._models.borrow_latent(params.model) as backend:
            picture = middle_square(image, params.size * backend.networks.vae_scale)
            yield backend, self._models.encode(backend, picture)

    def _plane_start(self, params: CloudParams) -> dict[str, Any]:
        self._models.wait()
        from studio.lab.point_model import PointModel
        from studio.lab.views.plane import parse_cloud, plane_view

        model = PointModel(parse_cloud(params.shape, params.text, params.strokes))
        return {"key": self._trainings.put((model, threading.Lock())), "plane": plane_view(model)}

    def _plane_train(self, params: TrainParams) -> dict[str, Any]:
        self._models.wait()
        from studio.lab.point_model import GuidanceTarget
        from studio.lab.views.plane import flow_view

        training = self._trainings.get(params.key)
        if training is None:
            raise ValueError("This training is no longer kept. Please start it again.")
        model, lock = training
        target = GuidanceTarget(params.label, params.away, params.guidance)
        with lock:
            for _ in model.train(params.seconds):
                pass
            return flow_view(model, target)

    def _inspect(self, params: InspectParams) -> dict[str, Any]:
        run = self.runs.opened(params.key, params.stage)
        self._models.wait()
        return self._models.inspect(run, params.stage, params.step)

    def _channels(self, params: StageParams) -> dict[str, Any]:
        run = self.runs.opened(params.key, params.stage)
        self._models.wait()
        from studio.lab.views.reverse import channel_sheets, explain_stage

        return {"sheets": channel_sheets(explain_stage(run.trace, params.stage, run.sampler))}

    def _decode(self, params: DecodeParams) -> dict[str, Any]:
        run = self.runs.opened(params.key, params.stage)
        self._models.wait()
        from studio.lab.pack import data_uri
        from studio.lab.views.reverse import explain_stage

        step = explain_stage(run.trace, params.stage, run.sampler)[run.check_step(params.stage, params.step)]
        latents = getattr(step, params.array)
        if latents is None:
            raise ValueError("These latents were not kept.")
        with self._models.borrow(run.trace.model) as backend:
            return {"picture": data_uri(self._models.decode(backend, latents))}

    def _latents(self, params: LatentsParams) -> dict[str, Any]:
        self._models.wait()
        from studio.lab.forward import middle_square
        from studio.lab.views.latents import latents_view

        picture = middle_square(self._picture(params.picture), params.size)
        with self._models.borrow_latent(params.model) as backend:
            latents = self._models.encode(backend, picture)
            reconstruction = self._models.decode(backend, latents)
            view = latents_view(picture, latents, backend.trace_model.preview, reconstruction)
            return view | {"model": backend.trace_model.id}

    def _animate(self, params: AnimationParams) -> dict[str, Any]:
        frames, pixels = [], 0
        for uri in params.frames:
            frames.append(flatten_alpha(image_from_uri(uri)))
            pixels += frames[-1].width * frames[-1].height
            if pixels > MAX_ANIMATION_PIXELS:
                raise ValueError("The pictures of this animation are too large.")
        return {
            "file": file_to_uri(encode_animation(frames, params.kind, params.seconds), ANIMATION_TYPES[params.kind])
        }

    # ---- for programs ----

    def noised_picture(self, image: Image.Image, params: NoisedParams) -> tuple[Image.Image, dict[str, Any]]:
        """Return a picture with noise, and its numbers. Raises ValueError."""
        self._models.wait()
        from studio.lab.views.forward import forward_numbers, latent_forward_numbers

        if params.space == "latents":
            with self._latents_of(image, params) as (backend, latents):
                model = backend.trace_model
                return latent_forward_numbers(
                    latents, model.preview, params.t, params.schedule, params.seed, model.scheduler_config
                )
        return forward_numbers(
            image,
            params.t,
            params.schedule,
            size=params.size,
            seed=params.seed,
            standardize=params.standardize,
            config=self._models.scheduler_config(),
        )


def _answer(method: Callable[[ParamsT], dict[str, Any]], kind: type[ParamsT], data: object) -> dict[str, Any]:
    try:
        return method(read_params(kind, data))
    except (ValueError, ArithmeticError, OSError) as problem:
        return {"problem": str(problem)}


def _read_shipped(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {"problem": "The example is missing."}
