"""Random drawings: shapes, strokes, gradients, dots, stripes and lettering, in any number."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SUPERSAMPLING = 4  # drawn so many times as large, then shrunk by means: smooth edges
HARD_EDGES = 0.1  # share of drawings without smooth edges
GRADIENTS = 0.25  # share of areas that are filled with a gradient
FONTS = (  # those that are not installed are left out
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSansMono.ttf",
    "LiberationSerif-Italic.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSans-Regular.ttf",
    "arial.ttf",
    "times.ttf",
)

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_picture(size: int, rng: random.Random) -> np.ndarray:
    """Return a random drawing (size, size, 3) uint8."""
    scale = 1 if rng.random() < HARD_EDGES else SUPERSAMPLING
    side = size * scale
    picture = fill(side, rng)
    for _ in range(rng.randint(1, 7)):
        mask = Image.new("L", (side, side))
        rng.choice(SHAPES)(ImageDraw.Draw(mask), size, scale, rng)
        picture.paste(fill(side, rng), (0, 0), mask)
    pixels = np.array(picture)
    if scale > 1:
        pixels = pixels.reshape(size, scale, size, scale, 3).mean((1, 3)).round().astype(np.uint8)
    return pixels


def random_color(rng: random.Random) -> Color:
    """Draw a color: at times black or white."""
    kind = rng.random()
    if kind < 0.3:
        return (255, 255, 255) if kind < 0.15 else (0, 0, 0)
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def fill(side: int, rng: random.Random) -> Image.Image:
    """Return a plain color or a linear gradient."""
    color = random_color(rng)
    if rng.random() >= GRADIENTS:
        return Image.new("RGB", (side, side), color)
    angle, other = rng.uniform(0, 2 * math.pi), random_color(rng)
    steps = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    share = (0.5 + steps[None] * math.cos(angle) + steps[:, None] * math.sin(angle)).clip(0, 1)[..., None]
    pixels = np.array(color, np.float32) * (1 - share) + np.array(other, np.float32) * share
    return Image.fromarray(pixels.round().astype(np.uint8))


# Each shape draws with 255 on a mask of `size * scale` px.


def draw_ellipse(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    pen.ellipse(_box(size, scale, rng), **_look(scale, rng))


def draw_rectangle(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    radius = rng.choice((0, 1)) * rng.uniform(0, size / 4) * scale
    pen.rounded_rectangle(_box(size, scale, rng), radius, **_look(scale, rng))  # pyright: ignore[reportArgumentType]


def draw_polygon(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    x, y, radius, turn = *_point(size, scale, rng), rng.uniform(3, size / 2) * scale, rng.uniform(0, 2 * math.pi)
    corners, inner = rng.randint(3, 12), rng.choice((1.0, 1.0, rng.uniform(0.3, 0.8)))  # inner below 1: a star
    points = []
    for corner in range(corners):
        angle = turn + 2 * math.pi * corner / corners
        reach = radius * (inner if corner % 2 else 1.0)
        points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    pen.polygon(points, **_look(scale, rng))


def draw_stroke(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    """Draw a Bézier curve or a straight line with round ends."""
    a, b, c, d = (_point(size, scale, rng) for _ in range(4))
    width = rng.choice((1, 1, 1.5, 2, 3, 5)) * rng.uniform(0.7, 1.3) * scale
    points = [a, d]
    if rng.random() < 0.7:
        points = []
        for t in np.linspace(0, 1, 24):
            shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            points.append(tuple(sum(s * p[i] for s, p in zip(shares, (a, b, c, d), strict=True)) for i in (0, 1)))
    pen.line(points, fill=255, width=max(round(width), 1), joint="curve")
    for x, y in (points[0], points[-1]):
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)


def draw_arc(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    start = rng.uniform(0, 360)
    width = max(round(rng.uniform(0.8, 5) * scale), 1)
    pen.arc(_box(size, scale, rng), start, start + rng.uniform(30, 330), fill=255, width=width)


def draw_dots(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    step = rng.uniform(3, 12) * scale
    radius = step * rng.uniform(0.15, 0.45)
    left, top, right, bottom = _box(size, scale, rng)
    for row in range(int((bottom - top) / step)):
        for column in range(int((right - left) / step)):
            x, y = left + (column + 0.5 * (row % 2)) * step, top + row * step
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def draw_stripes(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    step, angle, side = rng.uniform(2, 12) * scale, rng.uniform(0, math.pi), size * scale
    if rng.random() < 0.5:
        angle = rng.choice((0, math.pi / 2))
    x, y, width = math.cos(angle), math.sin(angle), max(round(step * rng.uniform(0.2, 0.7)), 1)
    count = rng.randint(2, max(int(side / step), 2))
    start = rng.uniform(-side, side / 2)
    for number in range(count):
        offset = start + number * step
        center_x, center_y = side / 2 - y * offset, side / 2 + x * offset
        pen.line(
            (center_x - x * side, center_y - y * side, center_x + x * side, center_y + y * side), fill=255, width=width
        )


def draw_letters(pen: ImageDraw.ImageDraw, size: int, scale: int, rng: random.Random) -> None:
    letters = "".join(rng.choices(string.ascii_letters + string.digits + "!?&.,-", k=rng.randint(1, 6)))
    font = load_font(rng.choice((*FONTS, "")), rng.uniform(6, size * 0.7) * scale)
    x, y = _point(size, scale, rng)
    pen.text((x - size * scale / 4, y), letters, fill=255, font=font, anchor="lm")


SHAPES: tuple[Callable[[ImageDraw.ImageDraw, int, int, random.Random], None], ...] = (
    draw_ellipse,
    draw_rectangle,
    draw_polygon,
    draw_stroke,
    draw_stroke,
    draw_arc,
    draw_dots,
    draw_stripes,
    draw_letters,
    draw_letters,
)


def load_font(name: str, size: float) -> Font:
    """Return a font by its file's name, or Pillow's own where it is not installed. size: px."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return ImageFont.load_default(size)


def _point(size: int, scale: int, rng: random.Random) -> tuple[float, float]:
    return rng.uniform(0, size) * scale, rng.uniform(0, size) * scale


def _box(size: int, scale: int, rng: random.Random) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom; it may reach over the border."""
    width, height = (rng.uniform(3, size) * scale for _ in range(2))
    x, y = _point(size, scale, rng)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _look(scale: int, rng: random.Random) -> dict[str, int]:
    """Return Pillow's options: filled, or an outline."""
    if rng.random() < 0.7:
        return {"fill": 255}
    return {"outline": 255, "width": max(round(rng.uniform(0.8, 4) * scale), 1)}
