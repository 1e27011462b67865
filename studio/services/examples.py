"""The pictures that stand where results will, painted by the studio itself: as they would come out of its library.

    python -m studio.services.examples [--model assets/model] [--out assets/examples]

After each change of weights. Knows requests and the library; knows nothing of Gradio.
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
from studio.models.families.studio import load_backend, read_capabilities, reserve_torch_threads
from studio.models.folder import model_info

PAINTED = (
    TextToImage("a red apple", style="glossy", background="blue", seed=2),
    TextToImage("a sunflower", style="twemoji", background="purple", seed=2),
    TextToImage("three foxes", style="noto", background="pink", seed=3),
    TextToImage("an owl left of a cactus", style="noto", background="white", seed=2),
    TextToImage("a hamburger", style="flat", background="green", seed=2),
    TextToImage("a pizza", style="glossy", background="gray", seed=6),
)
ENLARGED, FILLED = 5, 6  # which of them, by their number, are enlarged and have a hole filled
HOLE = (47, 19, 16)  # a disc: its centre and radius in px
OWNER = "examples"


def ship(model: Path, out: Path) -> None:
    """Paint all examples with a model folder. Raises RuntimeError if a run fails."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder), model=model_info(model).name)

        def load():
            sampler = load_backend(model)
            reserve_torch_threads()
            return sampler

        engine = Engine(load, library.journal, resolve=read_capabilities(model).resolve).start()

        def paint(request: Request, *names: str) -> None:
            *_, last = engine.follow(engine.submit(request, OWNER), OWNER)
            if not last.pictures:
                raise RuntimeError(f"{request.task}: {last.error}")
            for name in names:
                shutil.copyfile(last.pictures[0].path, out / name)

        try:
            for name in ("inpaint", "super-resolution"):
                (out / name).mkdir(parents=True, exist_ok=True)
            places = {ENLARGED: "super-resolution/picture.png", FILLED: "inpaint/picture.png"}
            for number, request in enumerate(PAINTED, 1):
                also = [places[number]] if number in places else []
                paint(request, f"{number}.png", *also)
            words = PAINTED[FILLED - 1]
            with Image.open(out / places[FILLED]) as picture:
                mask = Image.new("L", picture.size)
                ImageDraw.Draw(mask).circle(HOLE[:2], HOLE[2], fill=255)
                mask.save(out / "inpaint" / "mask.png")
                paint(Inpaint(words.prompt, picture, mask, style=words.style, background=words.background, seed=2), "inpaint/result.png")
            with Image.open(out / places[ENLARGED]) as picture:
                paint(SuperResolve(picture, 4), "super-resolution/result.png")
        finally:
            engine.shutdown()
            library.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--out", type=Path, default=Path("assets/examples"), help="folder of the examples")
    args = parser.parse_args()
    ship(args.model, args.out)


if __name__ == "__main__":
    main()
