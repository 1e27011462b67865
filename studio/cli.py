"""The command line: read the options, build the studio, open the page."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.models.catalog import Catalog

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns about parts that are not used

ROOT = Path(__file__).resolve().parents[1]
DTYPES = ("auto", "float32", "float16", "bfloat16")


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

    option("model", None, "the default model: a folder, a file, or the id of one found below; default: the bundled one")
    parser.add_argument(
        "--models-dir",
        action="append",
        help="folder in which other models are looked for; may be given several times; default: models "
        f"[STUDIO_MODELS_DIR, folders separated by {os.pathsep!r}]",
    )
    option("memory", None, "GB of memory that loaded models may take; default: a share of what the device has")
    option("host", "0.0.0.0" if on_space else "127.0.0.1", "address to serve on; default: %(default)s")
    option("port", "7860", "port to serve on; default: %(default)s")
    option("device", "auto", "auto, cpu, cuda or mps; default: %(default)s")
    option(
        "dtype",
        "auto",
        f"number format of models other than the bundled one, {', '.join(DTYPES)}; default: %(default)s",
    )
    option("data-dir", "outputs", "folder for pictures and jobs; default: %(default)s")
    option("auth", None, "user:password to ask for; required when others can reach the page")
    options = parser.parse_args(arguments)
    if not options.port.isdecimal() or not 1 <= int(options.port) <= 65535:
        parser.error(f"--port must be a whole number from 1 to 65535; it was {options.port!r}.")
    options.port = int(options.port)
    if options.models_dir is None:
        options.models_dir = [name for name in os.environ.get("STUDIO_MODELS_DIR", "").split(os.pathsep) if name]
    options.models_dir = options.models_dir or ["models"]
    if options.memory is not None:
        options.memory = _parse_gigabytes(parser, options.memory)
    if options.dtype not in DTYPES:
        parser.error(f"--dtype must be one of {', '.join(DTYPES)}; it was {options.dtype!r}.")
    options.host = options.host.strip("[]")
    if options.auth is not None:
        user, _, password = options.auth.partition(":")
        if not user or not password:
            parser.error("--auth must have the form user:password.")
        options.auth = (user, password)
    if not (options.auth or on_space or is_loopback(options.host)):
        parser.error(f"--host {options.host} lets others reach the page, so --auth user:password is required.")
    return options


def _parse_gigabytes(parser: argparse.ArgumentParser, text: str) -> int:
    """Return the bytes of a number of GB. Exit with a sentence if it is none."""
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    if not 0 < count < 1e6:
        parser.error(f"--memory must be a number of GB above 0; it was {text!r}.")
    return int(count * 1e9)


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
    from studio.models.families.loading import open_models
    from studio.models.resolver import ModelResolver
    from studio.server import serve
    from studio.services.context import AppContext

    data = Path(options.data_dir)
    try:
        library = Library(data)
    except JobRejected as problem:
        sys.exit(f"--data-dir {data}: {problem}")
    catalog = open_catalog(options.model, options.models_dir, data / "models.json")
    try:
        models, resolver = (
            open_models(catalog, device=options.device, memory=options.memory, dtype=options.dtype),
            ModelResolver(catalog),
        )
        engine = Engine(models, library.journal, resolve=resolver.resolve)
        is_public = "SPACE_ID" in os.environ and options.auth is None
        studio = AppContext(engine, library, resolver, manages_models=not is_public)
        serve(studio, host=options.host, port=options.port, auth=options.auth)
    except OSError as problem:
        sys.exit(f"The page could not be opened on {options.host}:{options.port}: {problem}")
    finally:
        catalog.close()
        library.close()


def open_catalog(model: str | None, folders: list[str], settings_file: Path) -> Catalog:
    """Return the catalog of some folders. model: path or id of the default model; None: the bundled one."""
    from studio.models.catalog import Catalog

    bundled = ROOT / "assets" / "model"
    catalog = Catalog(bundled, folders, settings_file=settings_file)
    if model is None:
        return catalog
    paths = {entry.id: entry.path for entry in catalog.entries}
    catalog.close()
    # The folder of the bundled model comes last, since the page downloads into the first one.
    return Catalog(paths.get(model, Path(model)), [*folders, bundled.parent], settings_file=settings_file)
