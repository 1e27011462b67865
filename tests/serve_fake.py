"""The page over the fake sampler: python -m tests.serve_fake FOLDER PORT [--delay S] [--gate FILE] [--active N]
[--auth NAME:PASSWORD,...]."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import cast

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from studio.engine.engine import Engine
from studio.library.store import Library
from studio.models.catalog import Catalog
from studio.models.resolver import ModelResolver
from studio.server import serve
from studio.services.context import AppContext
from tests.fakes import FakeBackend, single_model, write_model_folder
from tests.ui.models import FakeCatalog, fake_entry


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds a network call")
    parser.add_argument("--gate", type=Path, help="the model is loaded once this file is there")
    parser.add_argument("--plain", action="store_true", help="a vocabulary without thumbnails")
    parser.add_argument("--active", type=int, default=24, help="jobs that run at once")
    parser.add_argument("--auth", help="users and passwords, as in ann:secret,bob:other")
    options = parser.parse_args()
    auth = [tuple(user.split(":")) for user in options.auth.split(",")] if options.auth else None

    def load() -> FakeBackend:
        while options.gate and not options.gate.exists():
            time.sleep(0.05)
        return FakeBackend(options.delay)

    model = write_model_folder(options.folder / "model", thumbnails=not options.plain)
    library = Library(options.folder / "data")
    entry = fake_entry("model", "studio", name="Blob 64", path=model)
    models = ModelResolver(cast("Catalog", FakeCatalog([entry], [options.folder / "models"])))
    engine = Engine(single_model(load, entry.id), library.journal, resolve=models.resolve, max_active=options.active)
    serve(AppContext(engine, library, models), host="127.0.0.1", port=options.port, auth=auth)
    library.close()


if __name__ == "__main__":
    main()
