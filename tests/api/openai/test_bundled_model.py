"""The official client and the bundled model."""

from __future__ import annotations

import base64
import io

import numpy as np
import openai
from PIL import Image

from studio.api.openai import mapping
from studio.models.families.studio import load_backend
from tests.api.openai.conftest import serving_programs
from tests.fakes import MODEL


def test_a_red_apple_is_red(tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "random_seed", lambda: 1)
    with serving_programs(tmp_path, lambda: load_backend(MODEL)) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            answer = client.images.generate(prompt="a red apple", background="white", size="64x64", quality="low")
    picture = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).convert("RGB")
    red, green, blue = np.asarray(picture).reshape(-1, 3).mean(0)
    assert answer.size == "64x64" and red > max(green, blue)
