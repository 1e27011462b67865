"""The command line: read the options, build the studio, open the page."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns about parts that are not used

ROOT = Path(__file__).resolve().parents[1]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options, with defaults from the environment. Exit with a sentence if one is wrong."""
    on_space = "SPACE_ID" in os.environ
    parser = argparse.ArgumentParser(
        prog="diffusion-studio",
        description="A browser studio for diffusion models.",
        epilog="Each option can also be set by its environment variable, named in brackets.",
    )

    def option(name: str, default: str | None, text: str) -> None:
        variable = f"STUDIO_{name.upper().replace('-', '_')}"
        parser.add_argument(f"--{name}", default=os.environ.get(variable) or default, help=f"{text} [{variable}]")

    option(
        "model",
        str(ROOT / "assets" / "model"),
        "folder of the model, in diffusers layout; default: the bundled one",
    )
    option("host", "0.0.0.0" if on_space else "127.0.0.1", "address to serve on; default: %(default)s")
    option("port", "7860", "port to serve on; default: %(default)s")
    option("device", "auto", "auto, cpu, cuda or mps; default: %(default)s")
    option("data-dir", "outputs", "folder for pictures and jobs; default: %(default)s")
    option("auth", None, "user:password to ask for; required when others can reach the page")
    options = parser.parse_args(arguments)
    if not options.port.isdecimal() or not 1 <= int(options.port) <= 65535:
        parser.error(f"--port must be a whole number from 1 to 65535; it was {options.port!r}.")
    options.port = int(options.port)
    options.host = options.host.strip("[]")
    if options.auth is not None:
        user, _, password = options.auth.partition(":")
        if not user or not password:
            parser.error("--auth must have the form user:password.")
        options.auth = (user, password)
    if not (options.auth or on_space or is_loopback(options.host)):
        parser.error(f"--host {options.host} lets others reach the page, so --auth user:password is required.")
    return options


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main(arguments: list[str] | None = None) -> None:
    """Run the studio until it is interrupted."""
    options = parse_arguments(arguments)
    # Imported late, so that --help and wrong options are answered at once.
    from studio.engine.engine import Engine
    from studio.engine.job import JobRejected
    from studio.library.store import Library
    from studio.models.cache import ModelCache
    from studio.models.families.studio import load_backend, read_capabilities
    from studio.models.loader import reserve_torch_threads
    from studio.server import serve
    from studio.services.context import AppContext

    try:
        library = Library(Path(options.data_dir))
    except JobRejected as problem:
        sys.exit(f"--data-dir {options.data_dir}: {problem}")

    capabilities = read_capabilities(options.model)
    models = ModelCache(
        capabilities.model_id,
        lambda _: load_backend(options.model, options.device),
        size=lambda _: 0,
        budget=lambda: 0,
        claim_thread=reserve_torch_threads,
    )
    engine = Engine(models, library.journal, resolve=capabilities.resolve)
    try:
        studio = AppContext.open(Path(options.model), engine, library, capabilities)
        serve(studio, host=options.host, port=options.port, auth=options.auth)
    except OSError as problem:
        sys.exit(f"The page could not be opened on {options.host}:{options.port}: {problem}")
    finally:
        library.close()
