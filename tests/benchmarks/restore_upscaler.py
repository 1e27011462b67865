"""Quality and time of the upscaler network beside waifu2x and plain enlargement.

    python -m tests.benchmarks.restore_upscaler --upscaler CACHE/upscaler/run --sprites CACHE/sprites-256
        [--pictures 98] [--filter bicubic] [--sheets FOLDER]

`--upscaler` is a run of studio.training.upscaling.train, or a component folder. Pictures are held-out artwork on plain
colors, drawings of other seeds than training's, and scikit-image's photographs. Times are of one picture at a time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import skimage.data
import torch
from PIL import Image

from studio.diffusion.pipelines.base import image_to_tensor
from studio.diffusion.unet import StudioUNet
from studio.training.data.sprites import Sprites
from studio.training.evaluation.report import contact_sheet, format_figure, mean
from studio.training.evaluation.restoration import psnr, to_images, to_tensor
from studio.training.upscaling.drawings import draw_picture
from studio.training.upscaling.pairs import draw_held_out
from studio.training.upscaling.train import load_averaged, upscale
from tests.benchmarks.machine import heading, table
from tests.benchmarks.restore import PHOTOGRAPHS, ssim
from tests.benchmarks.restore_waifu2x import Waifu2x

DRAWING_SEED = 1_000_000_007  # of other drawings than training's
PHOTOGRAPH_SIDE = 256
FILTERS = {
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
SHEET_ROWS = 40

Enlarge = Callable[[Image.Image], Image.Image]  # twofold


def load_upscaler(folder: Path) -> StudioUNet:
    """Return the upscaler of a training run or of a component folder."""
    if (folder / "checkpoint.pt").exists():
        return load_averaged(folder)
    return StudioUNet.from_pretrained(folder, dtype=torch.float32).eval()


def by_network(unet: StudioUNet) -> Enlarge:
    """Return the upscaler as a function of a picture."""

    @torch.inference_mode()
    def enlarge(picture: Image.Image) -> Image.Image:
        return to_images(upscale(unet, image_to_tensor(picture)[None], torch.zeros(1)))[0]

    return enlarge


def by_filter(name: str) -> Enlarge:
    """Return an enlargement by one of FILTERS."""
    return lambda picture: picture.resize((2 * picture.width, 2 * picture.height), FILTERS[name])


def enlarge_repeatedly(enlarge: Enlarge, picture: Image.Image, factor: int) -> Image.Image:
    """Return a picture `factor` (2 or 4) times as large. Plain filters repeated equal themselves closely."""
    for _ in range(factor // 2):
        picture = enlarge(picture)
    return picture


def shrink(picture: Image.Image, factor: int, name: str) -> Image.Image:
    """Return a picture shrunk by one of FILTERS."""
    return picture.resize((picture.width // factor, picture.height // factor), FILTERS[name])


def load_photographs() -> torch.Tensor:
    """Return (N, 3, PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE): the middle of each photograph."""
    photographs = []
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        left, top = ((side - PHOTOGRAPH_SIDE) // 2 for side in picture.size)
        photographs.append(image_to_tensor(picture.crop((left, top, left + PHOTOGRAPH_SIDE, top + PHOTOGRAPH_SIDE))))
    return torch.stack(photographs)


def draw_drawings(count: int, size: int) -> torch.Tensor:
    """Return (count, 3, size, size)."""
    rng = random.Random(DRAWING_SEED)
    return torch.stack([image_to_tensor(draw_picture(size, rng)) for _ in range(count)])


def compare(
    methods: dict[str, Enlarge], truth: torch.Tensor, factor: int, name: str
) -> tuple[list[list[str]], dict[str, list[Image.Image]]]:
    """Return the rows of a table, and the methods' pictures. name: the filter that shrinks, one of FILTERS."""
    small = [shrink(picture, factor, name) for picture in to_images(truth)]
    given = to_tensor(small)
    pictures, seconds = {}, {}
    for method, enlarge in methods.items():
        pictures[method], times = [], []
        for picture in small:
            begin = time.perf_counter()
            pictures[method].append(enlarge_repeatedly(enlarge, picture, factor))
            times.append(time.perf_counter() - begin)
        seconds[method] = statistics.median(times)
    values = {method: psnr(to_tensor(results), truth) for method, results in pictures.items()}
    rows = []
    for method, results in pictures.items():
        back = psnr(to_tensor([shrink(picture, factor, name) for picture in results]), given)
        rows.append(
            [
                method,
                format_figure(mean(values[method], "dB")),
                format_figure(mean(values[method] - values["waifu2x-cunet"], "dB")),
                format_figure(mean(ssim(to_tensor(results), truth), "")),
                f"{back.mean():.1f} dB",
                f"{1000 * seconds[method]:.1f} ms",
            ]
        )
    size = (truth.shape[-1], truth.shape[-1])
    nearest = [picture.resize(size, Image.Resampling.NEAREST) for picture in small]
    return rows, {"given": nearest, **pictures, "truth": to_images(truth)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upscaler", type=Path, required=True, help="training run or component folder")
    parser.add_argument("--sprites", type=Path, required=True, help="sprites of 256 px")
    parser.add_argument("--pictures", type=int, default=98, help="of artwork, and of drawings")
    parser.add_argument("--filter", choices=FILTERS, default="bicubic", help="that shrinks the pictures")
    parser.add_argument("--photographs", action="store_true", help="compare photographs too")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of the first pictures")
    args = parser.parse_args()
    sprites = Sprites.load(args.sprites)
    methods = {
        "ours": by_network(load_upscaler(args.upscaler)),
        "waifu2x-cunet": Waifu2x("models-cunet", threads=torch.get_num_threads()),
        "bicubic": by_filter("bicubic"),
        "Lanczos": by_filter("Lanczos"),
    }
    photo = {"waifu2x-upconv-photo": Waifu2x("models-upconv_7_photo", threads=torch.get_num_threads())}
    print(heading())
    print("\nIn brackets: 95 % intervals; pictures count as independent. Times: medians.\n", flush=True)
    kinds = [
        (f"{what}, {size} px", pictures, methods)
        for size in (64, 128)
        for what, pictures in (
            ("held-out artwork", draw_held_out(sprites, args.pictures, size)),
            ("drawings", draw_drawings(args.pictures, size)),
        )
    ]
    if args.photographs:
        kinds.append((f"photographs, {PHOTOGRAPH_SIDE} px", load_photographs(), methods | photo))
    head = ["method", "PSNR", "PSNR over waifu2x-cunet", "SSIM", "shrunk again, from the given", "time"]
    for kind, truth, compared in kinds:
        for factor in (2, 4):
            rows, results = compare(compared, truth, factor, args.filter)
            print(
                f"### x{factor}, {kind}, shrunk by {args.filter}: n = {len(truth)}\n\n{table(head, rows)}\n", flush=True
            )
            if args.sheets:
                args.sheets.mkdir(parents=True, exist_ok=True)
                count = min(SHEET_ROWS, len(truth))
                pictures = [column[row] for row in range(count) for column in results.values()]
                sheet = contact_sheet(pictures, list(results) * count, len(results))
                sheet.save(args.sheets / f"x{factor}-{kind.replace(', ', '-').replace(' ', '-')}.png")


if __name__ == "__main__":
    main()
