"""Paint the shipped example pictures with the studio itself. Run it after each change of weights.

python -m studio.services.examples [--model assets/model] [--out assets/examples]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from studio.engine.engine import Engine
from studio.engine.requests import Inpaint, Request, SuperResolve, TextToImage
from studio.library.store import Library
from studio.models.catalog import Catalog
from studio.models.families.loading import open_models
from studio.models.resolver import ModelResolver

EXAMPLES = (
    TextToImage("a red apple", style="glossy", background="blue", seed=2),
    TextToImage("a sunflower", style="twemoji", background="purple", seed=2),
    TextToImage("three foxes", style="noto", background="pink", seed=3),
    TextToImage("an owl left of a cactus", style="noto", background="white", seed=2),
    TextToImage("a hamburger", style="flat", background="green", seed=2),
    TextToImage("a pizza", style="glossy", background="gray", seed=6),
)
# The examples that are enlarged, and that have a hole filled.
ENLARGED_EXAMPLE, FILLED_EXAMPLE = EXAMPLES[4], EXAMPLES[5]
HOLE_CENTER, HOLE_RADIUS = (47, 19), 16  # px
OWNER = "examples"


def paint_examples(model: Path, out: Path) -> None:
    """Paint all examples with a model folder into the folder `out`. Raises RuntimeError if a job fails."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder))
        catalog = Catalog(model)
        engine = Engine(open_models(catalog), library.journal, resolve=ModelResolver(catalog).resolve).start()
        try:
            for number, request in enumerate(EXAMPLES, 1):
                _paint(engine, request, out / f"{number}.png")
            _paint_inpaint_example(engine, out / Inpaint.task)
            _paint_super_resolution_example(engine, out / SuperResolve.task)
        finally:
            engine.shutdown()
            catalog.close()
            library.close()


def _paint_inpaint_example(engine: Engine, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = FILLED_EXAMPLE
    _paint(engine, source, folder / "picture.png")
    with Image.open(folder / "picture.png") as picture:
        mask = Image.new("L", picture.size)
        ImageDraw.Draw(mask).circle(HOLE_CENTER, HOLE_RADIUS, fill=255)
        mask.save(folder / "mask.png")
        request = Inpaint(source.prompt, picture, mask, style=source.style, background=source.background, seed=2)
    _paint(engine, request, folder / "result.png")


def _paint_super_resolution_example(engine: Engine, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _paint(engine, ENLARGED_EXAMPLE, folder / "picture.png")
    with Image.open(folder / "picture.png") as picture:
        request = SuperResolve(picture, 4)
    _paint(engine, request, folder / "result.png")


def _paint(engine: Engine, request: Request, path: Path) -> None:
    *_, job = engine.follow(engine.submit(request, OWNER), OWNER)
    if not job.pictures:
        raise RuntimeError(f"{request.task}: {job.error}")
    shutil.copyfile(job.pictures[0].path, path)


def main() -> None:
    """Read the command line and paint the examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--out", type=Path, default=Path("assets/examples"), help="folder of the examples")
    options = parser.parse_args()
    paint_examples(options.model, options.out)


if __name__ == "__main__":
    main()
