"""Settings inside a PNG: the `parameters` text that other studios read, and exact JSON beside it.

The `parameters` text has AUTOMATIC1111's form: the prompt, a line "Negative prompt: ...", and a last line such as
"Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1". A prompt that contains such lines reads back changed; the JSON does
not. Values are not checked here: an unknown sampler, or a number out of range, comes back as it is in the file.
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

from studio.engine.requests import with_current_names
from studio.imaging.files import MAX_PIXELS
from studio.library.files import atomic_write
from studio.models.samplers import SAMPLER_LABELS, SCHEDULE_TYPES

TEXT_KEY = "parameters"
JSON_KEY = "diffusion-studio"
MAX_OPTIMIZED_PIXELS = 1_000_000  # larger pictures are compressed less, which is ten times as fast

# Our names of the settings and AUTOMATIC1111's, in its order.
_LABELS = {
    "steps": "Steps",
    "sampler": "Sampler",
    "spacing": "Schedule type",
    "guidance": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model_hash": "Model hash",
    "model": "Model",
    "clip_skip": "Clip skip",
}
_NUMBERS = {"steps": int, "seed": int, "guidance": float, "clip_skip": int}
_SAMPLERS = {label.lower(): key for key, label in SAMPLER_LABELS.items()} | {"plms": "pndm"}
_SPACINGS = {label.lower(): key for key, label in SCHEDULE_TYPES.items()} | {"automatic": "", "simple": "trailing"}
_HARMLESS = {"version", "created date", "civitai metadata"}  # labels that say nothing about how a picture was made
_NEGATIVE = "Negative prompt:"
_LABEL = re.compile(r"\s*([^\s:,\"][^:,\"]*):\s*")
_JSON = json.JSONDecoder(strict=False)


def write_png(image: Image.Image, path: str | Path, settings: dict[str, Any]) -> None:
    """Write a picture with its settings atomically."""
    info = make_png_info(settings)
    optimize = image.width * image.height <= MAX_OPTIMIZED_PIXELS
    with atomic_write(Path(path)) as file:
        image.save(file, "PNG", pnginfo=info, optimize=optimize)


def make_png_info(settings: dict[str, Any]) -> PngInfo:
    """Return settings as the text chunks of a PNG."""
    info = PngInfo()
    text = format_parameters(settings).replace("\0", "")  # NUL would end the text
    info.add_text(TEXT_KEY, text.encode("utf-8", "replace").decode("utf-8"))  # lone surrogates become "?"
    info.add_itxt(JSON_KEY, json.dumps(settings, sort_keys=True))  # ASCII: JSON escapes all of these
    return info


def read_png_settings(file: str | Path | BinaryIO) -> dict[str, Any] | None:
    """Return the settings in a PNG: the JSON if it is valid, else the `parameters` text, else None.

    Settings of earlier versions come back under their current names.

    Raises ValueError with a sentence if the file is not a whole PNG or has more than MAX_PIXELS; OSError if it cannot
    be read.
    """
    try:
        with Image.open(file, formats=["PNG"]) as image:  # reads up to the pixels only
            width, height = image.size
            texts: dict[str, str] = {}
            if width * height <= MAX_PIXELS:
                image.load()  # text chunks may also follow the pixels
                texts = dict(getattr(image, "text", {}))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise ValueError(f"The picture has more than {MAX_PIXELS / 1e6:g} megapixels.") from problem
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error, ValueError) as problem:
        if isinstance(problem, OSError) and problem.errno:  # of the disk, not of the picture
            raise
        raise ValueError("The file is not a PNG picture, or it is cut short.") from problem
    if width * height > MAX_PIXELS:
        raise ValueError(f"The picture has {width} x {height} px; at most {MAX_PIXELS / 1e6:g} megapixels are read.")
    try:
        settings = json.loads(texts[JSON_KEY])
        if isinstance(settings, dict):
            return with_current_names(settings)
    except (KeyError, ValueError, RecursionError):
        pass
    return parse_parameters(texts[TEXT_KEY]) if TEXT_KEY in texts else None


def format_parameters(settings: dict[str, Any]) -> str:
    """Return settings as a `parameters` text; those that it has no label for are left out.

    `caption`, the whole prompt that the model read, takes the place of `prompt` if present.
    """
    lines = [str(settings.get("caption", settings.get("prompt", "")))]
    if settings.get("negative_prompt"):
        lines.append(f"{_NEGATIVE} {settings['negative_prompt']}")
    pairs: list[str] = []
    for key, label in _LABELS.items():
        value = settings.get(key)
        if value in (None, "") or (key == "clip_skip" and not value):
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if key == "sampler":
            text = SAMPLER_LABELS.get(text, text)
        elif key == "spacing":
            text = SCHEDULE_TYPES.get(text, text)
        elif key == "clip_skip":
            text = str(value + 1)  # AUTOMATIC1111 counts the layer whose output is used: 1 is the last
        if re.search(r'[,:\n"]', text):
            text = json.dumps(text, ensure_ascii=False)
        pairs.append(f"{label}: {text}")
    return "\n".join([*lines, ", ".join(pairs)])


def parse_parameters(text: str) -> dict[str, Any]:
    """Return the settings in a `parameters` text, ours or another studio's; unknown ones are left out.

    "prompt" and "negative_prompt" are always present. Settings stand on the last line that begins with "Steps:" (lines
    after it belong to extensions), else on the last line. As in AUTOMATIC1111's parse_generation_parameters, a line
    with fewer than three settings belongs to the prompt. A known sampler or spacing comes back under our name, also
    from one text as "DPM++ 2M Karras". A number that cannot be parsed stays text. "not_understood" lists the labels of
    settings that are unknown here, if there are any.
    """
    lines = re.sub(r"\r\n?", "\n", text).strip().split("\n")
    settings: dict[str, Any] = {}
    steps_lines = [number for number, line in enumerate(lines) if line.startswith("Steps:")]
    for number in (*steps_lines[-1:], len(lines) - 1):
        pairs = _parse_pairs(lines[number])
        settings = _parse_settings(pairs)
        if len(pairs) >= 3 and settings.keys() - {"not_understood"}:
            del lines[number:]
            break
        settings = {}
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in lines:
        if line.lstrip().startswith(_NEGATIVE):
            current, line = negative, line.lstrip().removeprefix(_NEGATIVE)
        current.append(line)
    return {"prompt": "\n".join(prompt).strip(), "negative_prompt": "\n".join(negative).strip(), **settings}


def _parse_pairs(line: str) -> dict[str, str]:
    """Return the values of "Label: value, Label: value" by their labels.

    A value may be a JSON string, list or object with commas inside. Text that is not a pair is skipped.
    """
    pairs: dict[str, str] = {}
    position = 0
    while position < len(line):
        if match := _LABEL.match(line, position):
            start = position = match.end()
            value: Any = None
            if line[start : start + 1] in ('"', "[", "{"):
                try:
                    value, position = _JSON.raw_decode(line, start)
                except (ValueError, RecursionError):
                    pass
            end = _find_comma(line, position)
            pairs[match[1].strip()] = value if isinstance(value, str) else line[start:end].strip()
        position = _find_comma(line, position) + 1
    return pairs


def _find_comma(line: str, position: int) -> int:
    """Return the position of the next comma, or the end of the line."""
    comma = line.find(",", position)
    return len(line) if comma < 0 else comma


def _parse_settings(pairs: dict[str, str]) -> dict[str, Any]:
    """Return the values of labels that are known here, by our names."""
    keys = {label.lower(): key for key, label in _LABELS.items()}
    settings: dict[str, Any] = {}
    not_understood: list[str] = []
    for label, text in pairs.items():
        key = keys.get(label.lower())
        if key is not None:
            settings[key] = _parse_value(key, text)
        elif label.lower() not in _HARMLESS:
            not_understood.append(label)
    sampler, _, spacing = str(settings.get("sampler", "")).rpartition(" ")
    if sampler.lower() in _SAMPLERS and spacing.lower() in _SPACINGS:  # in one text, as until version 1.9
        settings |= {"sampler": _SAMPLERS[sampler.lower()], "spacing": _SPACINGS[spacing.lower()]}
    return settings | ({"not_understood": not_understood} if not_understood else {})


def _parse_value(key: str, text: str) -> Any:
    if key == "sampler":
        return _SAMPLERS.get(text.lower(), text)
    if key == "spacing":
        return _SPACINGS.get(text.lower(), text)
    try:
        value = _NUMBERS.get(key, str)(text)
    except ValueError:
        return text
    return value - 1 if key == "clip_skip" else value
