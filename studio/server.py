"""Serve the page and the web API of one studio until the process is asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import gradio as gr

from studio.api.models import add_models_endpoint, models_route
from studio.api.noise import add_noise_endpoints
from studio.api.restoration import add_restoration_endpoints
from studio.api.text_to_image import add_text_to_image_endpoint
from studio.services.context import AppContext
from studio.ui.page import build_page, launch_options

SHUTDOWN_SECONDS = 8.0  # for the network call under way and the pictures that are being written


def build_app(context: AppContext) -> gr.Blocks:
    """Return the page with the endpoints of the web API."""
    app = build_page(context)
    with app:
        add_text_to_image_endpoint(context)
        add_restoration_endpoints(context)
        add_noise_endpoints(context)
        add_models_endpoint(context)
    app.queue(max_size=None, default_concurrency_limit=None)  # the engine has a queue of its own, with a limit
    return app


def serve_options(context: AppContext) -> dict[str, Any]:
    """Return how Gradio serves the page, with GET /models.json beside it."""
    options = launch_options(context)
    options["app_kwargs"]["routes"].append(models_route(context))
    return options


def serve(context: AppContext, *, host: str, port: int, auth: tuple[str, str] | None = None) -> None:
    """Open the page, then load the model, so that nobody waits for torch to be imported.

    Returns after SIGINT or SIGTERM, once the network call under way has ended. The next start resumes unfinished
    jobs. Raises OSError if the port is not free.
    """
    stop = threading.Event()
    handlers = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    app = build_app(context)
    try:
        name = f"[{host}]" if ":" in host else host  # Gradio wants brackets around an IPv6 address
        app.launch(server_name=name, server_port=port, auth=auth, prevent_thread_lock=True, **serve_options(context))
        print(f"Diffusion Studio is open at {app.local_url}", flush=True)
        context.engine.start()
        while not stop.wait(1.0):  # an endless wait would not let signals through on every platform
            pass
    finally:
        for number, handler in handlers.items():  # a second signal ends the process at once
            signal.signal(number, handler)
        context.engine.shutdown(SHUTDOWN_SECONDS)
        time.sleep(0.5)  # lets open streams send their last message; closing would wait for those cut off
        app.close(verbose=False)
