"""Settings inside a PNG: the `parameters` text that other studios read, and our exact JSON beside it.

Knows PNG text chunks; knows nothing of engines or pages. The `parameters` form is AUTOMATIC1111's: the prompt, a line
"Negative prompt: ...", and a last line "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1". It cannot hold every prompt
exactly (one that itself has such lines reads back changed); the JSON can. What is read is not judged here: a sampler
that we do not have, or a number out of range, comes back as it was written.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.engine.requests import MAX_PIXELS, SAMPLERS
from studio.library.files import atomic_write

TEXT_KEY = "parameters"
JSON_KEY = "diffusion-studio"

# our name -> theirs, in the order in which they write them
_NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "guidance": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
}
_KINDS = {"steps": int, "seed": int, "guidance": float}
_NEGATIVE = "Negative prompt:"
_NAME = re.compile(r"\s*([^\s:,\"][^:,\"]*):\s*")
_JSON = json.JSONDecoder(strict=False)
_OPTIMIZED_PIXELS = 1_000_000  # larger pictures are packed less tightly, which takes a tenth of the time


def to_parameters(settings: dict[str, Any]) -> str:
    """Settings (prompt, negative_prompt, steps, sampler, guidance, seed, size, model; no others) as text.

    `caption`, the whole prompt that the model read, stands for the prompt where there is one.
    """
    lines = [str(settings.get("caption", settings.get("prompt", "")))]
    if settings.get("negative_prompt"):
        lines.append(f"{_NEGATIVE} {settings['negative_prompt']}")
    shown = settings | {"sampler": SAMPLERS.get(settings.get("sampler"), settings.get("sampler"))}
    pairs = [f"{name}: {_quoted(shown[key])}" for key, name in _NAMES.items() if shown.get(key) is not None]
    return "\n".join([*lines, ", ".join(pairs)])


def from_parameters(text: str) -> dict[str, Any]:
    """The settings in a `parameters` text, ours or another studio's; fields that we do not have are left out.

    Always has "prompt" and "negative_prompt". The settings are on the last line that begins with "Steps:" (what follows
    is an extension's), else on the last line; as in AUTOMATIC1111's parse_generation_parameters, a line with fewer than
    three belongs to the prompt. A sampler that we have comes back by our name for it; a number that is none is text.
    """
    lines = re.sub(r"\r\n?", "\n", text).strip().split("\n")
    known: dict[str, str] = {}
    numbers = [number for number, line in enumerate(lines) if line.startswith("Steps:")]
    for number in (*numbers[-1:], len(lines) - 1):
        pairs = _pairs(lines[number])
        known = {key: pairs[name.lower()] for key, name in _NAMES.items() if name.lower() in pairs}
        if len(pairs) >= 3 and known:
            del lines[number:]
            break
        known = {}
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for line in lines:
        if line.lstrip().startswith(_NEGATIVE):
            target, line = negative, line.lstrip().removeprefix(_NEGATIVE)
        target.append(line)
    return {
        "prompt": "\n".join(prompt).strip(),
        "negative_prompt": "\n".join(negative).strip(),
        **{key: _value(key, value) for key, value in known.items()},
    }


def png_info(settings: dict[str, Any]) -> PngInfo:
    """Settings as the text chunks of a picture."""
    info = PngInfo()
    text = to_parameters(settings).replace("\0", "")  # ends a text in PNG
    info.add_text(TEXT_KEY, text.encode("utf-8", "replace").decode("utf-8"))  # half a surrogate pair is "?"
    info.add_itxt(JSON_KEY, json.dumps(settings, sort_keys=True))  # ASCII, in which all of these are escaped
    return info


def write_png(image: Image.Image, path: str | Path, settings: dict[str, Any]) -> None:
    """Writes a picture with its settings: whole or not at all."""
    info, few = png_info(settings), image.width * image.height <= _OPTIMIZED_PIXELS
    with atomic_write(Path(path)) as file:
        image.save(file, "PNG", pnginfo=info, optimize=few)


def read_png(file: str | Path | BinaryIO) -> dict[str, Any] | None:
    """The settings in a picture: our JSON if it is whole, else the `parameters` text, else None.

    Raises ValueError, with a sentence, for what is not a whole PNG picture or has more than 16 megapixels; OSError if
    the file cannot be read.
    """
    try:
        with Image.open(file, formats=["PNG"]) as image:  # which reads only as far as the pixels
            size, text = image.size, {}
            if size[0] * size[1] <= MAX_PIXELS:
                image.load()  # text chunks may stand after the pixels
                text = dict(getattr(image, "text", {}))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise ValueError(f"The picture has more than {MAX_PIXELS / 1e6:g} megapixels.") from problem
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error, ValueError) as problem:
        if isinstance(problem, OSError) and problem.errno:  # not of the picture
            raise
        raise ValueError("The file is not a PNG picture, or it is cut short.") from problem
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"The picture has {size[0]} x {size[1]} px; at most {MAX_PIXELS / 1e6:g} megapixels are read.")
    try:
        settings = json.loads(text[JSON_KEY])
        if isinstance(settings, dict):
            return settings
    except (KeyError, ValueError, RecursionError):
        pass
    return from_parameters(text[TEXT_KEY]) if TEXT_KEY in text else None


def _pairs(line: str) -> dict[str, str]:
    """The values by their names, in small letters, of "Name: value, Name: value". A value may be a JSON string, list or
    object, with commas inside; what is no pair is passed over."""
    pairs: dict[str, str] = {}
    position = 0
    while position < len(line):
        if match := _NAME.match(line, position):
            start = position = match.end()
            value: Any = None
            if line[start : start + 1] in ('"', "[", "{"):
                try:
                    value, position = _JSON.raw_decode(line, start)
                except (ValueError, RecursionError):
                    pass
            end = _comma(line, position)
            pairs[match[1].strip().lower()] = value if isinstance(value, str) else line[start:end].strip()
        position = _comma(line, position) + 1
    return pairs


def _comma(line: str, position: int) -> int:
    """Where the next comma is, or the end."""
    found = line.find(",", position)
    return len(line) if found < 0 else found


def _quoted(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def _value(key: str, text: str) -> Any:
    if key == "sampler":
        names = {label.lower(): name for name, label in SAMPLERS.items()}
        return names.get(text.lower(), text)
    try:
        return _KINDS.get(key, str)(text)
    except ValueError:
        return text
