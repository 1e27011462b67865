import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from studio.imaging.animation import LAST_FRAME_SECONDS, encode_animation


def frames(count: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (12, 20, 3), dtype=np.uint8)) for _ in range(count)]


def test_webp_is_lossless():
    originals = frames(5)
    with Image.open(io.BytesIO(encode_animation(originals, "webp", 2.0))) as file:
        assert file.n_frames == 5 and file.info["loop"] == 0
        for frame, original in zip(ImageSequence.Iterator(file), originals, strict=True):
            assert np.array_equal(np.asarray(frame.convert("RGB")), np.asarray(original))


def test_gif_has_all_frames_and_durations():
    with Image.open(io.BytesIO(encode_animation(frames(4), "gif", 2.0))) as file:
        times = [frame.info["duration"] for frame in ImageSequence.Iterator(file)]
    assert times == [500, 500, 500, 500 + 1000 * LAST_FRAME_SECONDS]


@pytest.mark.parametrize(
    ("images", "kind", "sentence"),
    [
        (frames(2), "avi", "kind is 'avi'; it must be one of webp, gif"),
        ([], "gif", "an animation needs pictures"),
        ([*frames(1), Image.new("RGB", (3, 3))], "webp", "all of one size"),
    ],
)
def test_invalid_animations_are_refused(images, kind, sentence):
    with pytest.raises(ValueError, match=sentence):
        encode_animation(images, kind, 1.0)
