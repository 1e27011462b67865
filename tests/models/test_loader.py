"""Loading of latent models: folders and single files equal to diffusers' own loading; each defect in one sentence."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import socket
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.models import single_file
from studio.models.formats import ModelError
from studio.models.loader import LoadedModel, load_latent
from studio.models.placement import Placement
from tests.models import ldm, tiny

CPU = Placement(device="cpu", dtype="float32")
MODULES = ("unet", "vae", "text_encoder", "text_encoder_2")


def weights(modules) -> dict[str, torch.Tensor]:
    return {f"{i}.{key}": value for i, module in enumerate(modules) for key, value in module.state_dict().items()}


def assert_equal(loaded: LoadedModel, pipeline) -> None:
    """All weights and buffers are those of the pipeline."""
    mine = {"unet": loaded.unet, "vae": loaded.vae}
    names = [name for name in ("text_encoder", "text_encoder_2") if getattr(pipeline, name, None) is not None]
    mine |= dict(zip(names, loaded.text_encoders, strict=True))
    assert mine.keys() == {name for name in MODULES if getattr(pipeline, name, None) is not None}
    for name, module in mine.items():
        theirs = getattr(pipeline, name)
        assert module.state_dict().keys() == theirs.state_dict().keys()
        for key, value in theirs.state_dict().items():
            assert torch.equal(module.state_dict()[key], value), (name, key)
        assert [key for key, buffer in module.named_buffers() if buffer.is_meta] == []
        assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())


@pytest.fixture
def copied(tmp_path):
    """A function that copies a tiny model's folder, for a test that changes it."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(tiny.folder(kind), tmp_path / kind))

    return copy


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("kind", ["sd15", "lcm", "sdxl", "refiner", "x4"])
def test_a_folder_is_loaded_as_diffusers_loads_it(kind, no_network):
    loaded, pipeline = load_latent(tiny.entry(kind), CPU), tiny.stock(kind)
    assert_equal(loaded, pipeline)
    assert loaded.scheduler_class is type(pipeline.scheduler)
    assert {key: pipeline.scheduler.config[key] for key in loaded.scheduler_config} == loaded.scheduler_config
    for tokenizer, theirs in zip(loaded.tokenizers, (pipeline.components.get("tokenizer"),), strict=False):
        if theirs is not None:
            assert tokenizer("a cat", padding="max_length").input_ids == theirs("a cat", padding="max_length").input_ids
    assert loaded.bytes == sum(value.nbytes for value in weights(loaded.modules).values())
    if kind == "x4":
        assert dict(loaded.extra["low_res_scheduler"].config).items() <= dict(pipeline.low_res_scheduler.config).items()
        assert loaded.extra["max_noise_level"] == 350
    for text_encoder in loaded.text_encoders:
        assert text_encoder.config._attn_implementation == "sdpa"


def as_file(kind: str, path: Path, monkeypatch, dtype: torch.dtype = torch.float32) -> Path:
    """Write a tiny model as a single file, and let its own configs be those of its family."""
    pipeline = tiny.build(kind)
    named = {key: value.to(dtype).contiguous() for key, value in ldm.file_weights(pipeline).items()}
    save_file(named, path)
    configs = {"scheduler": {"_class_name": type(pipeline.scheduler).__name__, **pipeline.scheduler.config}}
    for name in MODULES:
        if (module := getattr(pipeline, name, None)) is not None:
            configs[name] = module.config.to_dict() if "text" in name else dict(module.config)
    if kind == "x4":
        configs["low_res_scheduler"] = {"_class_name": "DDPMScheduler", **pipeline.low_res_scheduler.config}
    monkeypatch.setattr(single_file, "choose_configs", lambda identity, weights: configs)
    # The tokenizer of real files has more tokens than a tiny text encoder.
    monkeypatch.setattr(single_file, "clip_tokenizer", tiny.tokenizer)
    return path


@pytest.mark.parametrize("kind", ["sd15", "lcm", "sd2-v", "sdxl", "refiner", "x4"])
def test_a_single_file_is_loaded_with_the_same_weights(kind, tmp_path, monkeypatch, no_network):
    path = as_file(kind, tmp_path / "model.safetensors", monkeypatch)
    assert_equal(load_latent(tiny.entry(kind, path), CPU), tiny.stock(kind))


LAYOUTS = {
    "inpainting": "stable-diffusion",
    "sd2-v": "stable-diffusion",
    "sdxl": "sdxl",
    "refiner": "sdxl-refiner",
    "x4": "upscaler-x4",
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_shipped_configs_have_the_shapes_of_the_published_models(kind):
    """At full size on the meta device, converted from a file's names. The numbers of parameters are published."""
    from types import SimpleNamespace

    from studio.models import configs
    from studio.models.components import COMPONENTS, build, make_scheduler

    chosen = {"sd2-v": configs.SD2, "sdxl": configs.SDXL, "refiner": configs.SDXL_REFINER, "x4": configs.X4}
    chosen = dict(chosen.get(kind, configs.SD1))
    chosen["unet"] = {**chosen["unet"], "in_channels": {"inpainting": 9, "x4": 7}.get(kind, 4)}
    if kind == "inpainting":  # and one that embeds the guidance, as LCM does
        chosen["unet"]["time_cond_proj_dim"] = 256
    classes = COMPONENTS[LAYOUTS[kind]]
    modules = {name: build(name, classes[name][0], chosen[name], 10_000) for name in MODULES if name in chosen}
    named = ldm.file_weights(SimpleNamespace(**{"text_encoder": None, **modules}))
    found = single_file.choose_configs(tiny.entry(kind).identity, named)
    assert {name: found[name] for name in modules} == {name: chosen[name] for name in modules}
    for name, module in modules.items():
        converted = single_file.convert(name, module, named)
        converted = {key.removeprefix("text_model."): value.shape for key, value in converted.items()}
        assert converted == {key.removeprefix("text_model."): value.shape for key, value in module.state_dict().items()}
    millions = {name: round(sum(p.numel() for p in module.parameters()) / 1e6) for name, module in modules.items()}
    assert (
        millions
        == {
            "sd15": {"unet": 860, "vae": 84, "text_encoder": 123},
            "inpainting": {"unet": 860, "vae": 84, "text_encoder": 123},
            "lcm": {"unet": 860, "vae": 84, "text_encoder": 123},
            "sd2-v": {"unet": 866, "vae": 84, "text_encoder": 340},
            "sdxl": {"unet": 2567, "vae": 84, "text_encoder": 123, "text_encoder_2": 695},
            "refiner": {"unet": 2260, "vae": 84, "text_encoder_2": 695},
            "x4": {"unet": 473, "vae": 55, "text_encoder": 340},
        }[kind]
    )
    make_scheduler("scheduler", found["scheduler"])


def test_clips_tokenizer_has_its_published_ids():
    tokenizer = single_file.clip_tokenizer("!")
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("A  Photo of a CAT", padding="max_length").input_ids[5:9] == [2368, 49407, 0, 0]
    assert tokenizer.decode([2368]) == "cat"


def test_the_prediction_type_of_the_identity_is_obeyed(tmp_path, monkeypatch):
    path = as_file("sd15", tmp_path / "model.safetensors", monkeypatch)
    for where in (None, path):
        entry = tiny.entry("sd15", where, prediction_type="v_prediction", zero_terminal_snr=True)
        config = load_latent(entry, CPU).scheduler_config
        assert config["prediction_type"] == "v_prediction" and config["timestep_spacing"] == "trailing"


def test_half_precision_stays_as_it_is_placed(tmp_path, monkeypatch):
    path = as_file("sd15", tmp_path / "model.safetensors", monkeypatch, torch.float16)
    for dtype in ("float32", "bfloat16", "float16"):
        loaded = load_latent(tiny.entry("sd15", path), Placement(device="cpu", dtype=dtype))
        dtypes = {value.dtype for value in weights(loaded.modules).values()}
        assert dtypes == {getattr(torch, dtype)}


def test_the_fp16_variant_shards_and_early_names_are_read(copied):
    folder = copied("sd15")
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    os.rename(unet, unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    named = load_file(vae)
    early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for key in [key for key in named if "attentions" in key]:
        for today, before in early.items():
            if f".{today}." in key:
                named[key.replace(f".{today}.", f".{before}.")] = named.pop(key)
                break
    keys = sorted(named)
    assert any("proj_attn" in key for key in keys)
    for number, part in enumerate((keys[:40], keys[40:])):
        save_file({key: named[key] for key in part}, vae.with_name(f"part-{number}.safetensors"))
    vae.unlink()
    weight_map = {key: f"part-{int(i >= 40)}.safetensors" for i, key in enumerate(keys)}
    vae.with_name(f"{vae.name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    text = folder / "text_encoder" / "model.safetensors"
    with_prefix = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(text).items()}
    save_file({**with_prefix, "text_model.embeddings.position_ids": torch.arange(77)[None]}, text)
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]  # named and absent
    (folder / "model_index.json").write_text(json.dumps(index))
    assert_equal(load_latent(tiny.entry("sd15", folder), CPU), tiny.stock("sd15"))


def change_json(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_weights(path: Path, change) -> None:
    named = load_file(path)
    change(named)
    save_file(named, path)


UNET = "unet/diffusion_pytorch_model.safetensors"
DEFECTS = {
    "missing": (
        lambda f: change_weights(f / UNET, lambda w: w.pop("conv_in.weight")),
        r"weights of the unet lack conv_in\.weight\.",
    ),
    "several missing": (
        lambda f: change_weights(f / UNET, lambda w: [w.pop(key) for key in list(w) if key.startswith("mid_block")]),
        r"weights of the unet lack mid_block\.\S+ and \d+ more\.",
    ),
    "extra": (
        lambda f: change_weights(f / UNET, lambda w: w.update(more=torch.ones(1))),
        "weights of the unet hold more, for which its config has no place",
    ),
    "misshapen": (
        lambda f: change_json(f / "unet" / "config.json", in_channels=5),
        r"conv_in\.weight of the unet has the shape \(16, 4, 3, 3\); its config asks for \(16, 5, 3, 3\)",
    ),
    "NaN": (
        lambda f: change_weights(f / UNET, lambda w: w["conv_in.bias"].fill_(torch.nan)),
        r"conv_in\.bias of the unet holds NaN or infinity",
    ),
    "infinity": (
        lambda f: change_weights(
            f / "text_encoder/model.safetensors", lambda w: next(iter(w.values())).fill_(torch.inf)
        ),
        "of the text_encoder holds NaN or infinity",
    ),
    "integers": (
        lambda f: change_weights(f / UNET, lambda w: w.update({"conv_in.bias": w["conv_in.bias"].to(torch.int8)})),
        r"conv_in\.bias of the unet is stored as int8",
    ),
    "quantized": (
        lambda f: change_json(f / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes_4bit"}),
        "unet is quantized",
    ),
    "huge": (
        lambda f: change_json(f / "unet" / "config.json", cross_attention_dim=800_000),
        r"unet reads text of width 800000",
    ),
    "too wide": (
        lambda f: change_json(f / "vae" / "config.json", block_out_channels=[16, 800_000]),
        r"of the vae has the shape \(32,\); its config asks for \(800000,\)",
    ),
    "larger than a number may be": (
        lambda f: change_json(f / "text_encoder" / "config.json", vocab_size=10**15),
        "config of the text_encoder has vocab_size 1,000,000,000,000,000; 1,000,000 is the most",
    ),
    "endless": (
        lambda f: change_json(f / "text_encoder" / "config.json", num_hidden_layers=900_000),
        "config of the text_encoder has more layers than its 36 weights could belong to",
    ),
    "nonsense": (
        lambda f: change_json(f / "vae" / "config.json", down_block_types=["Evil", "Evil"]),
        "config of the vae is not that of a AutoencoderKL",
    ),
    "a class of its own": (
        lambda f: change_json(f / "model_index.json", unet=["my_unet", "MyUNet"]),
        "has unet of the class 'MyUNet'; a SD 1.x model has UNet2DConditionModel",
    ),
    "another component": (
        lambda f: (shutil.copytree(f / "vae", f / "more"), change_json(f / "model_index.json", more=["os", "system"])),
        "has more of the class 'system'; a SD 1.x model has no such component",
    ),
    "no vae": (
        lambda f: change_json(f / "model_index.json", vae=[None, None]),
        "has no vae",
    ),
    "scheduler": (
        lambda f: change_json(f / "scheduler" / "scheduler_config.json", _class_name="os.system"),
        "scheduler is a 'os.system'; it must be one of",
    ),
    "train steps": (
        lambda f: change_json(f / "scheduler" / "scheduler_config.json", num_train_timesteps=10**12),
        "config of the scheduler has a number above 1,000,000",
    ),
    "text of another width": (
        lambda f: change_json(f / "unet" / "config.json", cross_attention_dim=40),
        "unet reads text of width 40, the text encoders give 32",
    ),
    "tokens": (
        lambda f: change_json(f / "text_encoder" / "config.json", vocab_size=500),
        "tokenizer knows 514 tokens, its text encoder 500",
    ),
    "link": (
        lambda f: (
            (f.parent / "v.json").write_text("{}") and (f / "tokenizer" / "x.json").symlink_to(f.parent / "v.json")
        ),
        "tokenizer/x.json is a link out of the model's folder",
    ),
    "deep": (
        lambda f: (f / "tokenizer" / "tokenizer_config.json").write_text("[" * 100_000),
        "tokenizer/tokenizer_config.json holds JSON that is nested too deeply",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_one_sentence(defect, copied):
    harm, says = DEFECTS[defect]
    folder = copied("sd15")
    harm(folder)
    with pytest.raises(ModelError, match=says) as caught:
        load_latent(tiny.entry("sd15", folder), CPU)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 400


def test_an_attention_implementation_of_a_config_is_not_looked_for(copied):
    folder = copied("sd15")
    fields = {
        "_attn_implementation": "someone/kernels",
        "attn_implementation": "someone/kernels",
        "auto_map": {"": "x"},
    }
    change_json(folder / "text_encoder" / "config.json", **fields)
    loaded = load_latent(tiny.entry("sd15", folder), CPU)
    assert loaded.text_encoders[0].config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("model.diffusion_model.out.", r"weights of the unet lack conv_norm_out\.weight and 3 more"),
        ("first_stage_model.", "file holds no weights of the vae"),
        ("cond_stage_model.", "file holds no weights of the text_encoder"),
        ("first_stage_model.decoder.mid.attn_1.", r"weights of the vae lack decoder\.mid_block\.attentions\.0\."),
    ],
)
def test_what_a_single_file_lacks_is_named(prefix, says, tmp_path, monkeypatch):
    path = as_file("sd15", tmp_path / "model.safetensors", monkeypatch)
    change_weights(path, lambda w: [w.pop(key) for key in list(w) if key.startswith(prefix)])
    with pytest.raises(ModelError, match=says):
        load_latent(tiny.entry("sd15", path), CPU)


def test_extra_weights_of_single_files_do_no_harm(tmp_path, monkeypatch):
    path = as_file("sd15", tmp_path / "model.safetensors", monkeypatch)
    more = ("alphas_cumprod", "model_ema.decay", "v_pred")
    change_weights(path, lambda w: w.update({key: torch.ones(3) for key in more}))
    assert_equal(load_latent(tiny.entry("sd15", path), CPU), tiny.stock("sd15"))


def test_a_file_may_be_replaced_while_its_model_is_loaded(tmp_path, monkeypatch):
    path = as_file("sd15", tmp_path / "model.safetensors", monkeypatch)
    loaded = load_latent(tiny.entry("sd15", path), CPU)
    path.write_bytes(bytes(path.stat().st_size))
    assert_equal(loaded, tiny.stock("sd15"))


def test_problems_of_the_entry_are_told_before_anything_is_read(tmp_path):
    entry = dataclasses.replace(tiny.entry("sd15"), path=tmp_path / "gone", problems=("It is broken.",))
    with pytest.raises(ModelError, match="It is broken"):
        load_latent(entry, CPU)


def test_full_memory_leads_to_offload_then_to_a_sentence(monkeypatch):
    from studio.models import components

    seen = []

    def full(name, module, weights, dtype, device):
        seen.append(device)
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(components, "fill", full)
    with pytest.raises(ModelError, match="Memory was full while sd15 was loaded"):
        load_latent(tiny.entry("sd15"), Placement(device="cuda:0", dtype="float32"))
    assert seen == ["cuda:0", "cpu"]


def test_reduced_memory_tiles_the_decoder_with_a_sentence():
    loaded = load_latent(tiny.entry("sd15"), CPU)
    assert "decodes in tiles" in loaded.reduce_memory()
    assert loaded.placement.vae_tiling
    assert loaded.reduce_memory() is None


def test_one_offloaded_module_at_a_time_is_on_the_device():
    """Devices are recorded; on the CPU each of them is "cpu"."""
    from studio.models.offload import offload

    class Module(torch.nn.Linear):
        where = "cpu"

        def to(self, device):
            self.where = str(device)
            return self

    modules = [Module(2, 2) for _ in range(3)]
    offload(modules, "meta")
    value = torch.ones(1, 2)
    for number in (0, 1, 1, 2, 0):
        modules[number].weight = torch.nn.Parameter(modules[number].weight.detach().to("meta"))
        modules[number].bias = torch.nn.Parameter(modules[number].bias.detach().to("meta"))
        assert modules[number](value).device.type == "meta"  # its input was moved too
        assert [module.where for module in modules] == ["meta" if i == number else "cpu" for i in range(3)]


def test_an_offloaded_model_computes_the_same():
    loaded = load_latent(tiny.entry("sd15"), Placement(device="cpu", dtype="float32", offload=True))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.vae.decode(latents).sample, tiny.stock("sd15").vae.decode(latents).sample)


def test_twenty_loads_give_their_memory_back():
    """All modules are gone at once, without garbage collection."""
    import psutil

    def load() -> list[weakref.ref]:
        loaded = load_latent(tiny.entry("sd15"), CPU)
        return [weakref.ref(module) for module in loaded.modules]

    process = psutil.Process()
    gc.collect()
    gc.disable()
    try:
        for number in range(21):
            assert [module() for module in load()] == [None] * 3
            if number == 0:
                first = process.memory_info().rss
    finally:
        gc.enable()
    # 20 models kept would add 40 MB.
    assert process.memory_info().rss - first < 20_000_000
