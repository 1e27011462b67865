"""Identification: full-size layouts as headers alone, tiny folders, and files that are no whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel

from studio.models.catalog.scan import read_entry
from studio.models.folders import ModelFolder, read_model_folder
from studio.models.formats import read_header
from studio.models.identify import (
    FAMILIES,
    PREDICTION_TYPES,
    UNKNOWN,
    VARIANTS,
    Identity,
    default_settings,
    identify_folder,
    with_overrides,
)
from studio.models.identify_file import SD2_CLUE, identify_file
from tests.models import tiny
from tests.models.layouts import Shapes, layout, modules, with_channels, write_header

MODEL = Path(__file__).resolve().parents[2] / "assets" / "model"


def identify(path: Path, shapes: Shapes, name: str = "model", **options: Any) -> Identity:
    return identify_file(read_header(write_header(path / "x.safetensors", shapes, **options)), name)


def only(shapes: Shapes, *prefixes: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("shapes", "family", "variant", "prediction_type", "version", "side"),
    [
        (lambda: layout("sd1"), "stable-diffusion", "text-to-image", "epsilon", "SD 1.x", 512),
        (lambda: layout("sd2"), "stable-diffusion", "text-to-image", "epsilon", "SD 2.x", 512),
        (lambda: layout("sdxl"), "sdxl", "text-to-image", "epsilon", "SDXL", 1024),
        (lambda: layout("refiner"), "sdxl-refiner", "text-to-image", "epsilon", "SDXL refiner", 1024),
        (lambda: layout("x4"), "upscaler-x4", "text-to-image", "v_prediction", "SD x4 upscaler", 512),
        (lambda: with_channels(layout("sd1"), 9), "stable-diffusion", "inpainting", "epsilon", "SD 1.x", 512),
        (lambda: with_channels(layout("sd2"), 9), "stable-diffusion", "inpainting", "epsilon", "SD 2.x", 512),
        (lambda: with_channels(layout("sdxl"), 9), "sdxl", "inpainting", "epsilon", "SDXL", 1024),
    ],
)
def test_published_models_are_known_by_their_headers(tmp_path, shapes, family, variant, prediction_type, version, side):
    found = identify(tmp_path, shapes())
    assert (found.family, found.variant, found.prediction_type) == (family, variant, prediction_type)
    assert (found.version, found.sample_size, found.problems) == (version, (side, side), ())
    assert found.evidence and all(sentence.endswith(".") for sentence in found.evidence)


def test_sizes_are_known_without_the_weights(tmp_path):
    averages = {"model_ema.decay": (), "model_ema.diffusion_modelinput_blocks00weight": (320, 4, 3, 3)}  # not loaded
    entry = read_entry(write_header(tmp_path / "sd.safetensors", {**layout("sd1"), **averages}))
    assert entry.parameters == sum(part.num_parameters() for part in vars(modules("sd1")).values())
    assert (entry.bytes, entry.dtype) == (2 * entry.parameters, "F16")


def test_keys_and_metadata_name_the_prediction_type(tmp_path):
    keys = {**layout("sdxl"), "v_pred": (0,), "ztsnr": (0,)}
    found = identify(tmp_path, keys)
    assert (found.family, found.prediction_type, found.zero_terminal_snr) == ("sdxl", "v_prediction", True)
    assert default_settings(found)["spacing"] == "trailing"
    metadata = {"modelspec.prediction_type": "v", "modelspec.resolution": "768x512"}
    found = identify(tmp_path, layout("sd1"), metadata=metadata)
    assert (found.prediction_type, found.sample_size) == ("v_prediction", (768, 512))
    hostile = {"modelspec.prediction_type": "__import__", "modelspec.resolution": "9999x1"}
    found = identify(tmp_path, layout("sd1"), metadata=hostile)
    assert (found.prediction_type, found.sample_size) == ("epsilon", (512, 512))


@pytest.mark.parametrize(("spread", "prediction_type", "side"), [(0.2, "v_prediction", 768), (0.01, "epsilon", 512)])
def test_a_bias_tells_the_prediction_type_of_sd_2(tmp_path, spread, prediction_type, side):
    path = write_header(tmp_path / "sd2.safetensors", layout("sd2"))
    header = read_header(path)
    values = torch.randn(320, generator=torch.Generator().manual_seed(0)).mul(spread).half()
    with path.open("r+b") as file:
        file.seek(header.length + header.tensors[SD2_CLUE].start)
        file.write(values.numpy().tobytes())
    found = read_entry(path).identity
    assert (found.prediction_type, found.sample_size) == (prediction_type, (side, side))


def test_names_are_weak_evidence_and_say_so(tmp_path):
    assert identify(tmp_path, layout("sdxl"), "sd_xl_turbo_1.0").evidence[1] == 'Its name contains "turbo".'
    assert identify(tmp_path, layout("sd1"), "dream-LCM").variant == "lcm"
    assert identify(tmp_path, layout("sd1"), "realcmix").variant == "text-to-image"
    guided = {**layout("sd1"), "model.diffusion_model.time_embed.cond_proj.weight": (320, 256)}
    found = identify(tmp_path, guided)
    assert (found.variant, found.embeds_guidance) == ("lcm", True)


def lora() -> Shapes:
    """A LoRA of SD 1.x in kohya's format."""
    shapes = {}
    for name, module in modules("sd1").unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v")):
            key = f"lora_unet_{name.replace('.', '_')}"
            shapes[f"{key}.lora_down.weight"] = (8, module.in_features)
            shapes[f"{key}.lora_up.weight"] = (module.out_features, 8)
            shapes[f"{key}.alpha"] = ()
    return shapes


def control_net() -> Shapes:
    with torch.device("meta"):
        model = ControlNetModel(block_out_channels=(32, 64), down_block_types=("DownBlock2D",) * 2, norm_num_groups=8)
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def diffusers_vae() -> Shapes:
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in AutoencoderKL().state_dict().items()}


def diffusers_unet() -> Shapes:
    return {name: tuple(weight.shape) for name, weight in modules("sdxl").unet.state_dict().items()}


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        (dict, "empty file"),
        (lora, "LoRA"),
        (lambda: {"unet.mid_block.attentions.0.proj_in.lora_A.weight": (4, 8)}, "LoRA"),
        (control_net, "ControlNet"),
        (lambda: {"control_model.time_embed.0.weight": (4, 4)}, "ControlNet"),
        (diffusers_vae, "VAE"),
        (lambda: only(layout("sd1"), "first_stage_model."), "VAE"),
        (
            lambda: {n.removeprefix("first_stage_model."): s for n, s in only(layout("sd1"), "first_stage").items()},
            "VAE",
        ),
        (lambda: only(layout("sdxl"), "conditioner."), "text encoder"),
        (lambda: {"text_model.embeddings.token_embedding.weight": (49408, 768)}, "text encoder"),
        (lambda: {"emb_params": (4, 768)}, "embedding"),
        (lambda: {"clip_l": (2, 768), "clip_g": (2, 1280)}, "embedding"),
        (lambda: {"<cat-toy>": (768,)}, "embedding"),
        (diffusers_unet, "U-Net"),
        (lambda: {"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "Flux"),
        (lambda: {"model.diffusion_model.joint_blocks.0.x.weight": (4,)}, "SD 3"),
        (lambda: {"something.else": (3, 3)}, "unknown file"),
        (lambda: {"model.diffusion_model.input_blocks.0.0.weight": (4,)}, "another model"),
    ],
)
def test_other_files_are_named_as_what_they_are(tmp_path, shapes, kind):
    found = identify(tmp_path, shapes(), "thing")
    assert (found.family, found.version) == (UNKNOWN, kind)
    assert len(found.problems) == 1 and found.problems[0].startswith("thing ") and found.problems[0].endswith(".")


@pytest.mark.parametrize(
    ("shapes", "family", "says"),
    [
        (lambda: only(layout("sdxl"), "model."), "sdxl", ["no text encoder", "no VAE"]),
        (lambda: only(layout("sd1"), "model."), "stable-diffusion", ["no text encoder", "no VAE"]),
        (lambda: only(layout("sd2"), "model.", "cond"), "stable-diffusion", ["no VAE"]),
        (lambda: with_channels(layout("sd1"), 8), UNKNOWN, ["edits or animates pictures"]),
        (lambda: with_channels(layout("sd2"), 5), UNKNOWN, ["5 input channels"]),
        (lambda: {**layout("sdxl"), "edm_mean": (4,)}, UNKNOWN, ["EDM"]),
        (
            lambda: {**layout("sd1"), "model.diffusion_model.label_emb.0.0.weight": (4, 4)},
            UNKNOWN,
            ["text encoders are of another kind"],
        ),
    ],
)
def test_parts_of_models_and_their_relatives_are_not_taken_for_models(tmp_path, shapes, family, says):
    found = identify(tmp_path, shapes())
    assert found.family == family and len(found.problems) == len(says)
    for problem, words in zip(found.problems, says, strict=True):
        assert words in problem


FOLDERS = {
    "sd15": ("stable-diffusion", "text-to-image", "epsilon", "SD 1.x"),
    "inpainting": ("stable-diffusion", "inpainting", "epsilon", "SD 1.x"),
    "lcm": ("stable-diffusion", "lcm", "epsilon", "SD 1.x"),
    "turbo": ("stable-diffusion", "turbo", "epsilon", "SD 1.x"),
    "sd2-v": ("stable-diffusion", "text-to-image", "v_prediction", "SD 2.x"),
    "sdxl": ("sdxl", "text-to-image", "epsilon", "SDXL"),
    "sdxl-inpainting": ("sdxl", "inpainting", "epsilon", "SDXL"),
    "refiner": ("sdxl-refiner", "text-to-image", "epsilon", "SDXL refiner"),
    "x4": ("upscaler-x4", "text-to-image", "v_prediction", "SD x4 upscaler"),
}


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_folders_are_known_by_their_configs(kind):
    entry = read_entry(tiny.folder(kind))
    found = entry.identity
    assert (found.family, found.variant, found.prediction_type, found.version) == FOLDERS[kind]
    assert entry.problems == found.problems == () and found.sample_size == (tiny.SIDE, tiny.SIDE)
    assert found.embeds_guidance == (kind == "lcm")


def test_the_bundled_model_is_of_the_studios_own_family():
    entry = read_entry(MODEL)
    assert (entry.identity.family, entry.identity.latent_channels) == ("studio", 3)
    assert entry.identity.sample_size == (64, 64) and entry.problems == ()


def test_other_pipelines_are_named(tmp_path):
    files = ModelFolder(index={"_class_name": "FluxPipeline"}, configs={}, headers={}, problems=())
    assert identify_folder(files, "flux").problems == (
        "flux is a FluxPipeline; this studio runs SD 1.x, SD 2.x, SDXL and the SD x4 upscaler.",
    )


VALUES = (None, [], {}, "x" * 1000, -1, 10**30, float("inf"), True, [None], [[4]], {"a": [1]}, [10**9, 2])


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "x4"])
def test_no_value_of_a_config_breaks_identification(kind):
    files = read_model_folder(tiny.folder(kind))
    configs: dict[str, dict[str, Any]] = {name: dict(config) for name, config in files.configs.items()}
    for component in ("unet", "vae", "scheduler"):
        for key in list(configs[component]):
            for value in VALUES:
                changed = {**configs, component: {**configs[component], key: value}}
                index = {**files.index, component: value}
                for tried in (
                    ModelFolder(index=files.index, configs=changed, headers={}, problems=()),
                    ModelFolder(index=index, configs=configs, headers={}, problems=()),
                ):
                    found = identify_folder(tried, kind)
                    assert found.family in (*FAMILIES, UNKNOWN) and found.variant in VARIANTS
                    assert found.prediction_type in PREDICTION_TYPES
                    assert all(type(side) is int and 8 <= side <= 4096 for side in found.sample_size)


def test_what_a_person_sets_counts_and_is_said():
    found = Identity(family="sdxl", version="SDXL")
    changed = with_overrides(found, {"prediction_type": "v_prediction", "trigger_words": "x"})
    assert (changed.family, changed.version, changed.prediction_type) == ("sdxl", "SDXL", "v_prediction")
    assert changed.evidence == ("You set the prediction type to v_prediction.",)
    strange = Identity(family=UNKNOWN, version="FooPipeline", problems=("It is a FooPipeline.",))
    assert with_overrides(strange, {"variant": "lcm"}).problems == strange.problems
    assert with_overrides(strange, {"family": "sdxl"}).problems == ()
