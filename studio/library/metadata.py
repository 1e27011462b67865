"""Settings inside a PNG: the `parameters` text that other studios read, and our exact JSON beside it.

Knows PNG text chunks; knows nothing of requests, engines or pages. The `parameters` form is AUTOMATIC1111's:
the prompt, a line "Negative prompt: ...", and a last line "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1".
It cannot hold every prompt exactly (one that itself has such lines reads back changed); the JSON can.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

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
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def to_parameters(settings: dict[str, Any]) -> str:
    """Settings (prompt, negative_prompt, steps, sampler, guidance, seed, size, model; no others) as text.

    `caption`, the whole prompt that the model read, stands for the prompt where there is one.
    """
    lines = [str(settings.get("caption", settings.get("prompt", "")))]
    if settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    pairs = [f"{name}: {_quoted(settings[key])}" for key, name in _NAMES.items() if settings.get(key) is not None]
    return "\n".join([*lines, ", ".join(pairs)])


def from_parameters(text: str) -> dict[str, Any]:
    """The settings in a `parameters` text, ours or another studio's; fields that we do not have are left out.

    Follows parse_generation_parameters of AUTOMATIC1111/stable-diffusion-webui: the last line holds the pairs
    if it has at least three of them, else it belongs to the prompt.
    """
    *lines, last = text.strip("\n").split("\n")
    pairs = dict(_PAIR.findall(last))
    if len(pairs) < 3:
        lines, pairs = [*lines, last], {}
    prompt, negative, target = [], [], None
    for line in lines:
        if line.startswith("Negative prompt:") and target is None:
            target = negative
            line = line.removeprefix("Negative prompt:").lstrip()
        (prompt if target is None else negative).append(line)
    settings: dict[str, Any] = {
        "prompt": "\n".join(prompt).strip(),
        "negative_prompt": "\n".join(negative).strip(),
    }
    for key, name in _NAMES.items():
        if name in pairs:
            settings[key] = _value(key, pairs[name])
    return settings


def write_png(image: Image.Image, path: str | Path, settings: dict[str, Any]) -> None:
    """Writes a picture with its settings: whole or not at all (temporary name, flushed, renamed)."""
    path = Path(path)
    info = PngInfo()
    info.add_text(TEXT_KEY, to_parameters(settings))
    info.add_itxt(JSON_KEY, json.dumps(settings, ensure_ascii=False, sort_keys=True))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            image.save(file, "PNG", pnginfo=info, optimize=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_png(file: str | Path | BinaryIO) -> dict[str, Any] | None:
    """The settings in a picture: our JSON if it is whole, else the `parameters` text, else None."""
    with Image.open(file, formats=["PNG"]) as image:
        image.load()  # text chunks may stand after the pixels
        text = dict(getattr(image, "text", {}))
    try:
        settings = json.loads(text[JSON_KEY])
        if isinstance(settings, dict):
            return settings
    except (KeyError, ValueError):
        pass
    return from_parameters(text[TEXT_KEY]) if TEXT_KEY in text else None


def _quoted(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def _value(key: str, text: str) -> Any:
    text = text.strip()
    if text.startswith('"'):
        try:
            text = json.loads(text)
        except ValueError:
            pass
    try:
        return {"steps": int, "seed": int, "guidance": float}.get(key, str)(text)
    except ValueError:
        return text
