"""The tab "Noise" and the endpoints /forward_noise and /reverse_trace.

Reads the page into what the lab or the engine is asked for, and their answers into JSON that noise.js draws; no
arithmetic on tensors. The lab is imported when it is first needed: importing torch takes seconds.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import random
import secrets
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image, ImageOps

from studio.engine.job import JobView, Refusal
from studio.engine.requests import MAX_PIXELS, MAX_SEED, SAMPLERS, InvalidRequest, TextToImage
from studio.ui.noise_words import panels

if TYPE_CHECKING:
    from studio.ui.studio import Studio

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP"]
FIRST, EXAMPLE_RUN = ASSETS / "noise.json", ASSETS / "noise-run.json"
MOST_TOYS = 16  # trainings in the plane that are kept to be taken up again
MOST_RUNS = 32  # runs on the page that the network can still be looked into
SLICE = 3.0  # seconds that one call may train
COMPARED = 4
CONVERGED = 100  # steps of the run that others are measured against
# Gradio gives this to the component's script beside `element`, `trigger` and `server`; see noise.js.
_SCRIPT = (Path(__file__).parent / "noise.js").read_text("utf-8")
# What is on the page when the tab is first opened was put there before anybody could watch.
_INBOX = """const tell = () => window.dispatchEvent(new CustomEvent("noise-letter", { detail: props.value }));
watch("value", tell);
tell();"""


class Shelf:
    """A few things by keys that cannot be guessed; the one not asked for the longest goes first."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._things: OrderedDict[str, Any] = OrderedDict()

    def put(self, thing: Any) -> str:
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._things[key] = thing
            while len(self._things) > self._most:
                self._things.popitem(last=False)
        return key

    def get(self, key: object) -> Any | None:
        with self._lock:
            if not isinstance(key, str) or key not in self._things:
                return None
            self._things.move_to_end(key)
            return self._things[key]


@dataclass(frozen=True)
class Run:
    """A trace on the page, and the words and the sampler of the run that left it."""

    trace: Any
    caption: str
    sampler: str
    label: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoiseTab:
    """The tab's parts that others reach: any event may put `open(owner, picture_id)` into `inbox`."""

    view: gr.HTML
    inbox: gr.HTML
    open: Callable[[str, str], str]


def build_tab(studio: Studio, token: Any = None) -> NoiseTab:
    """The tab's parts; call it inside a gr.Tab. token: the component with the browser's own token, see owner.py."""
    room = Room(studio)
    view = gr.HTML(
        panels(SAMPLERS),
        elem_id="noise",
        apply_default_css=False,
        js_on_load=_SCRIPT,
        server_functions=[
            _function(method)
            for method in (room.first, room.example_run, room.forward, room.plane_start, room.plane_train, room.look)
        ],
    )
    inbox = gr.HTML("", visible="hidden", html_template="<i></i>", js_on_load=_INBOX, elem_id="noise-inbox")
    tokens = [] if token is None else [token]

    def owner(request: gr.Request, given: tuple) -> str:
        return room.owner(request, given[0] if given else None)

    def run(*given: Any, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from room.run(getattr(event, "asked", None), owner(request, given))

    def compare(*given: Any, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from room.compare(getattr(event, "asked", None), owner(request, given))

    private = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    view.run(_with_event(run, len(tokens)), tokens, [inbox], **private)
    view.compare(_with_event(compare, len(tokens)), tokens, [inbox], **private)
    return NoiseTab(view, inbox, room.open)


def _function(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Gradio marks what it may serve, which a bound method does not bear."""

    def function(asked: Any) -> Any:
        return method(asked)

    function.__name__ = method.__name__
    return function


def _with_event(function: Callable, inputs: int) -> Callable:
    """Gradio counts a function's arguments, so that there must be one for each input."""

    def without(event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from function(event=event, request=request)

    def with_token(token: Any, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from function(token, event=event, request=request)

    return with_token if inputs else without


class Room:
    """What the tab asks for. Answers are JSON; what cannot be done is {"problem": a sentence}."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.toys, self.runs = Shelf(MOST_TOYS), Shelf(MOST_RUNS)
        self._listener: tuple[Any, Any] | None = None
        self._looking = threading.Lock()

    # ---- asked by noise.js, `server.<name>(asked)` ----

    def first(self, asked: Any) -> Any:
        """The shipped forward and plane views, so that nothing waits for torch."""
        return _shipped(FIRST)

    def example_run(self, asked: Any) -> Any:
        return _shipped(EXAMPLE_RUN)

    def forward(self, asked: Any) -> Any:
        return _answer(self._forward, asked)

    def _forward(self, picture: Any, size: Any = 64, seed: Any = 0, standardize: Any = False) -> Any:
        from studio.lab.views import forward_view

        if isinstance(picture, int):
            shipped = sorted(self.studio.examples.glob("*.png"))
            image = Image.open(shipped[picture % len(shipped)])
        else:
            image = _picture(_from_uri(picture))
        return forward_view(image, size, _seed(seed), bool(standardize), self._config)

    def plane_start(self, asked: Any) -> Any:
        return _answer(self._plane_start, asked)

    def _plane_start(self, shape: Any, text: Any = "", strokes: Any = ()) -> Any:
        from studio.lab.toy import Toy
        from studio.lab.views import cloud_of, plane_view

        toy = Toy(cloud_of(str(shape), str(text), strokes))
        return {"key": self.toys.put((toy, threading.Lock())), "plane": plane_view(toy)}

    def plane_train(self, asked: Any) -> Any:
        return _answer(self._plane_train, asked)

    def _plane_train(
        self, key: Any, seconds: Any = 0.0, label: Any = None, away: Any = None, guidance: Any = 1.0
    ) -> Any:
        """Trains for so long (0: not at all) and shows where the points go now."""
        from studio.lab.toy import Aim
        from studio.lab.views import flow_view

        held = self.toys.get(key)
        if held is None:
            raise ValueError("This training is no longer kept: begin it again.")
        aim = Aim(label, away, _number("guidance", guidance))
        toy, lock = held
        with lock:
            for _ in toy.train(min(SLICE, max(0.0, _number("seconds", seconds)))):
                pass
            return flow_view(toy, aim)

    def look(self, asked: Any) -> Any:
        return _answer(self._look, asked)

    def _look(self, key: Any, stage: Any = 0) -> Any:
        from studio.lab.views import looking_view

        run = self.runs.get(key)
        if run is None:
            raise ValueError("This run is no longer kept: open it again.")
        if stage not in range(len(run.trace.stages)):
            raise ValueError(f"stage is {stage!r}; it must be from 0 to {len(run.trace.stages) - 1}")
        with self._looking:
            pipe = self._own_listener()
            if pipe is None:
                raise ValueError("This model's network cannot be looked into.")
            return looking_view(pipe, run.caption, run.trace.stages[stage])

    # ---- asked with an owner ----

    def run(self, asked: Any, owner: str) -> Iterator[str]:
        """One run here: letters of its progress, then its trace."""
        try:
            request = _request(asked)
            *_, run = self._runs(request, owner, "reverse")
            if isinstance(run, str):
                return
        except StopIteration:
            return
        except (InvalidRequest, Refusal, ValueError) as problem:
            yield _letter("reverse", problem=str(problem))
            return
        yield self._reverse_letter(run)

    def compare(self, asked: Any, owner: str) -> Iterator[str]:
        """Two to four runs and, to measure them by, one of many steps; letters of progress, then all of them."""
        from studio.lab.views import compare_view

        try:
            wanted = asked["runs"] if isinstance(asked, dict) else None
            if not isinstance(wanted, list) or not 2 <= len(wanted) <= COMPARED:
                raise ValueError(f"compare 2 to {COMPARED} runs")
            requests = [_request(one) for one in wanted]
            goal = None
            if len({(r.prompt, r.negative_prompt, r.guidance, r.seed) for r in requests}) == 1:
                like = requests[0]
                goal = _request({**wanted[0], "steps": CONVERGED, "sampler": "studio"})
                assert goal.seed == like.seed
            runs = []
            for number, request in enumerate([*requests, *([goal] if goal else [])]):
                yield _letter("compare", progress=number, of=len(requests) + bool(goal))
                *_, run = self._runs(request, owner, "compare")
                runs.append(run)
            picture = runs.pop().trace.stages[0].x0[-1] if goal else None
            labels = [str(one.get("label") or "")[:60] for one in wanted]
            view = compare_view(
                [(label, run.trace, run.sampler) for label, run in zip(labels, runs, strict=True)], picture
            )
        except (InvalidRequest, Refusal, ValueError) as problem:
            yield _letter("compare", problem=str(problem))
            return
        yield _letter("compare", view=view | {"converged": CONVERGED if goal else None})

    def open(self, owner: str, picture_id: str) -> str:
        """The letter that shows the trace of a kept picture, or says why it cannot."""
        picture = self.studio.library.picture(owner, picture_id)
        trace = self.studio.library.trace(owner, picture_id) if picture else None
        if picture is None or trace is None:
            return _letter("reverse", problem="No trace was kept of how this picture was made.")
        try:
            return self._reverse_letter(_run(trace, picture.settings))
        except ValueError as problem:
            return _letter("reverse", problem=f"This trace cannot be shown: {problem}.")

    def _runs(self, request: TextToImage, owner: str, kind: str) -> Iterator[Any]:
        """Follows a run through the engine; the last thing it gives is the Run. Raises ValueError."""
        view: JobView | None = None
        for view in self.studio.engine.follow(self.studio.engine.submit(request, owner), owner):
            yield _letter(kind, progress=view.step, of=view.steps)
        if view is None or view.state != "done":
            raise ValueError((view and view.error) or "The run was cancelled.")
        trace = self.studio.library.trace(owner, view.pictures[0].id)
        if trace is None:
            raise ValueError("No trace was kept of this run: the space for traces is full.")
        yield _run(trace, view.pictures[0].settings | {"sampler": request.sampler, "caption": request.caption})

    def _reverse_letter(self, run: Run) -> str:
        from studio.lab.views import reverse_view

        stages = reverse_view(run.trace, run.sampler, self._config)
        key = self.runs.put(run)
        return _letter(
            "reverse",
            view={"key": key, "caption": run.caption, "sampler": SAMPLERS[run.sampler], "stages": stages},
        )

    def owner(self, request: gr.Request, token: Any) -> str:
        owners = getattr(self.studio, "owners", None)
        if owners is not None:
            return owners.of_page(request, token)[0] if token is not None else owners.of_call(request)
        return f"call:{request.session_hash}"

    @property
    def _config(self) -> Any:
        """The model's own schedule; None until it is loaded: then the bundled model's."""
        pipe = getattr(self.studio.engine.sampler, "pipeline", None)
        return getattr(getattr(pipe, "scheduler", None), "config", None)

    def _own_listener(self) -> Any | None:
        from studio.lab.attention import listener

        pipe = getattr(self.studio.engine.sampler, "pipeline", None)
        if pipe is None:
            return None
        if self._listener is None or self._listener[0] is not pipe:
            self._listener = (pipe, listener(pipe))
        return self._listener[1]


def add_endpoints(studio: Studio) -> None:
    """/forward_noise and /reverse_trace, for gradio_client and any other program."""
    room = Room(studio)

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
            t: train step, 0 (clean) to 999 (noise)
            schedule: model, linear, scaled-linear or cosine
            size: side in px, one of 16, 32, 64, 128
            seed: of the noise, 0 to 4294967295
            standardize: bring the picture to mean 0 and variance 1 first
        """
        from studio.lab.views import forward_numbers

        try:
            picture = _picture(Path(_path(image)).read_bytes())
            noised, numbers = forward_numbers(
                picture, _whole(t), schedule, _whole(size), _seed(seed), bool(standardize), room._config
            )
        except (ValueError, OSError) as problem:
            raise gr.Error(str(problem), print_exception=False) from problem
        return _file(noised, f"noise-{int(t)}.png"), numbers

    def reverse_trace(
        prompt: str,
        negative_prompt: str = "",
        steps: int = 12,
        guidance: float = 3.0,
        sampler: str = "studio",
        seed: int | None = None,
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
        """
        from studio.lab.views import reverse_view

        asked = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "steps": steps,
            "guidance": guidance,
            "sampler": sampler,
            "seed": seed,
        }
        try:
            painted = _request(asked)
            *_, run = room._runs(painted, room.owner(request, None), "reverse")
            stages = reverse_view(run.trace, run.sampler, room._config)
        except (InvalidRequest, Refusal, ValueError) as problem:
            raise gr.Error(str(problem), print_exception=False) from problem
        strip = Image.open(io.BytesIO(_from_uri(stages[0]["sheets"]["x0"])))
        info = {
            "seed": painted.seed,
            "prompt": painted.caption,
            "sampler": sampler,
            "stages": [{"width": s["width"], "height": s["height"], "steps": s["steps"]} for s in stages],
        }
        return _file(strip, "trace.png"), info

    gr.api(forward_noise, api_name="forward_noise", concurrency_limit=None)
    gr.api(reverse_trace, api_name="reverse_trace", concurrency_limit=None)


# ---- reading what arrives ----


def _answer(function: Callable[..., Any], asked: Any) -> Any:
    try:
        return function(**(asked if isinstance(asked, dict) else {}))
    except TypeError as problem:
        if "argument" not in str(problem):
            raise
        return {"problem": "What was asked for was not understood."}
    except (ValueError, OSError) as problem:
        return {"problem": str(problem)}


def _request(asked: Any) -> TextToImage:
    """Raises InvalidRequest."""
    asked = asked if isinstance(asked, dict) else {}
    seed = asked.get("seed")
    return TextToImage(
        prompt=asked.get("prompt", ""),
        negative_prompt=asked.get("negative_prompt", ""),
        steps=_whole(asked.get("steps", 12)),
        guidance=asked.get("guidance", 3.0),
        sampler=asked.get("sampler", "studio"),
        seed=random.randrange(MAX_SEED + 1) if seed is None else _whole(seed),
    )


def _run(trace: Any, settings: dict[str, Any]) -> Run:
    sampler = settings.get("sampler", "studio")
    return Run(trace, str(settings.get("caption", "")), sampler if sampler in SAMPLERS else "studio")


def _whole(value: Any) -> Any:
    """15.0 as 15, which browsers and JSON do not tell apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seed(value: Any) -> int:
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise ValueError(f"seed is {str(value)[:40]!r}; it must be a whole number from 0 to {MAX_SEED}")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {str(value)[:40]!r}; it must be a number")
    return float(value)


def _picture(data: bytes) -> Image.Image:
    """A picture of an allowed format, upright. Its size is read before its pixels. Raises ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"The picture has {pixels / 1e6:.1f} megapixels; it may have {MAX_PIXELS / 1e6:.0f} at most."
            )
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as problem:
        raise ValueError("This file is not a picture that can be read (PNG, JPEG, WebP, GIF, BMP).") from problem


def _from_uri(uri: Any) -> bytes:
    try:
        return base64.b64decode(str(uri).partition(",")[2], validate=True)
    except binascii.Error as problem:
        raise ValueError("The picture did not arrive whole.") from problem


def _path(image: Any) -> str:
    """Where an uploaded file lies. Raises ValueError for any other file: nobody reads the server's own through us."""
    from gradio.utils import get_upload_folder, is_in_or_equal

    path = image.get("path") if isinstance(image, dict) else getattr(image, "path", image)
    if not isinstance(path, str) or not path or not is_in_or_equal(path, get_upload_folder()):
        raise ValueError("image must be an uploaded file, as gradio_client's handle_file makes it")
    return path


def _file(image: Image.Image, name: str) -> dict[str, Any]:
    from gradio.processing_utils import save_pil_to_cache
    from gradio.utils import get_upload_folder

    path = save_pil_to_cache(image, get_upload_folder(), format="png")
    return gr.FileData(path=path, orig_name=name, mime_type="image/png").model_dump()


def _letter(kind: str, **contents: Any) -> str:
    """What noise.js is told. Its number makes two letters of the same words different."""
    return json.dumps({"kind": kind, "number": secrets.token_hex(4), **contents})


def _shipped(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {"problem": "The example is missing."}
