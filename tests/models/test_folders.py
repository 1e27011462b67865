import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.models.folders import check_model_folder, read_model_info
from studio.models.formats import ModelError
from studio.models.loader import load_pipeline


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole model folder of the smallest kind."""
    root = tmp_path / "model"
    (root / "unet").mkdir(parents=True)
    (root / "scheduler").mkdir()
    index = {
        "_class_name": "StudioTextToImagePipeline",
        "unet": ["studio.diffusion.unet", "StudioUNet"],
        "scheduler": ["studio.diffusion.schedulers.studio_scheduler", "StudioScheduler"],
        "safety_checker": [None, None],
    }
    (root / "model_index.json").write_text(json.dumps(index))
    (root / "unet" / "config.json").write_text('{"sample_size": 16, "window_size": 32}')
    (root / "scheduler" / "scheduler_config.json").write_text("{}")
    save_file({"w": np.zeros((1000, 30), "float16")}, root / "unet" / "diffusion_pytorch_model.safetensors")
    return root


def weights(folder: Path) -> Path:
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def test_a_whole_folder_has_no_problems(folder):
    assert check_model_folder(folder) == []


def test_model_info_needs_no_loading(folder):
    info = read_model_info(folder)
    assert (info.name, info.parameters, info.size, info.picture_size) == ("model", 30_000, "30 k", 32)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Emoji 32\n\nText.\n")
    assert read_model_info(folder).name == "Emoji 32"


def cut(path: Path, bytes_left: int) -> None:
    path.write_bytes(path.read_bytes()[:bytes_left])


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: cut(weights(f), 30_000), r"cut short: 30,000 of 60,\d\d\d bytes are there"),
        (lambda f: cut(weights(f), 20), "is cut short or is not safetensors"),
        (lambda f: cut(weights(f), 0), "is cut short or is not safetensors"),
        (lambda f: weights(f).write_bytes(b"\xff" * 64), "is cut short or is not safetensors"),
        (lambda f: weights(f).write_bytes(weights(f).read_bytes() + b"more"), "has 4 bytes too many"),
        (lambda f: weights(f).write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda f: weights(f).unlink(), "has no safetensors weights for unet"),
        (lambda f: (f / "unet" / "x.bin").touch(), r"holds a pickle, unet/x\.bin"),
        (lambda f: (f / "model.CKPT").touch(), r"holds a pickle, model\.CKPT"),
        (lambda f: cut(f / "model_index.json", 9), "model_index.json of .* is cut short or is not JSON"),
        (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
        (
            lambda f: (f / "model_index.json").write_text(
                json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]})
            ),
            "is a StableDiffusionPipeline; only models of this studio's own kind, StudioUNet, run",
        ),
        (lambda f: (f / "scheduler").rename(f / "old"), "has no scheduler"),
    ],
)
def test_each_defect_is_one_sentence_and_is_not_loaded(folder, harm, says):
    harm(folder)
    problems = check_model_folder(folder)
    assert len(problems) == 1 and problems[0].endswith(".")
    with pytest.raises(ModelError, match=says):
        load_pipeline(folder)
    read_model_info(folder)  # never raises


def test_missing_shards_are_named(folder):
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": weights(folder).name, "v": "second.safetensors"}}))
    assert check_model_folder(folder) == [f"The model {folder.name} has no unet/second.safetensors."]


def test_a_missing_folder_is_named(tmp_path):
    assert check_model_folder(tmp_path / "no") == [f"The model folder {tmp_path / 'no'} does not exist."]
    (tmp_path / "file").touch()
    assert "is not a folder" in check_model_folder(tmp_path / "file")[0]
