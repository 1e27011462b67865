"""Load models safely: check their files first, then read safetensors only.

Importing this module is cheap: torch and diffusers are imported when a model is loaded.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio.engine.backend import is_out_of_memory
from studio.models.catalog import ModelEntry
from studio.models.folders import check_model_folder
from studio.models.formats import ModelError
from studio.models.placement import Placement


@dataclass(kw_only=True)
class LoadedModel:
    """A latent diffusion model in memory. Modules are in evaluation mode and need no gradients.

    text_encoders, tokenizers: one or two, in the order of the embeddings; the SDXL refiner has the second alone.
    scheduler_class, scheduler_config: the model's own scheduler, with the prediction type of its identity.
    extra: "low_res_scheduler": the scheduler that adds noise to the input of the x4 upscaler;
        also the other fields of model_index.json, such as force_zeros_for_empty_prompt.
    bytes: of the weights in memory.
    """

    entry: ModelEntry
    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    scheduler_class: type
    scheduler_config: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    placement: Placement
    bytes: int

    @property
    def modules(self) -> tuple[Any, ...]:
        """All parts that have weights."""
        return (*self.text_encoders, self.unet, self.vae)

    def reduce_memory(self) -> str | None:
        """Apply the next setting that needs less memory. Return its sentence, or None if there is none."""
        milder = self.placement.milder()
        if milder is None:
            return None
        self.apply(milder)
        return milder.reasons[-1]

    def apply(self, placement: Placement) -> None:
        """Set the placement, with offload where it says so; offload is not switched off again."""
        if placement.offload:
            from studio.models.offload import offload

            offload(self.modules, placement.device)
        self.placement = placement


def load_latent(entry: ModelEntry, placement: Placement) -> LoadedModel:
    """Load a model of the catalog that is not of the bundled kind. Raises ModelError with one sentence.

    If the device's memory is full, the model is loaded with offload.
    """
    if entry.problems:
        raise ModelError(entry.problems[0])
    try:
        return _load_latent(entry, placement)
    except Exception as problem:
        if not is_out_of_memory(problem):
            raise
        gc.collect()
        if placement.offload or placement.device == "cpu":
            raise ModelError(f"Memory was full while {entry.name} was loaded.") from None
    reason = "Memory was full while the model was loaded, so components are on the device only while they compute."
    reasons = (*placement.reasons, reason)
    return load_latent(entry, replace(placement, vae_tiling=True, offload=True, reasons=reasons))


def _load_latent(entry: ModelEntry, placement: Placement) -> LoadedModel:
    import torch

    from studio.models.components import build, fill, make_scheduler
    from studio.models.sources import open_source

    source = open_source(entry.path, entry.layout, entry.identity)
    dtype = getattr(torch, placement.dtype)
    device = "cpu" if placement.offload else placement.device
    modules: dict[str, Any] = {}
    for name, class_name in source.classes.items():
        if name in ("unet", "vae") or name.startswith("text_encoder"):
            modules[name] = build(name, class_name, source.configs[name], source.weight_count(name))
    encoders = [name for name in ("text_encoder", "text_encoder_2") if name in modules]
    tokenizers = tuple(source.tokenizer(name.replace("text_encoder", "tokenizer")) for name in encoders)
    text_encoders = tuple(modules[name] for name in encoders)
    _check_fit(modules["unet"], modules["vae"], text_encoders, tokenizers)
    scheduler = make_scheduler("scheduler", _scheduler_config(entry, source.configs["scheduler"]))
    extra: dict[str, Any] = dict(source.options)
    if "low_res_scheduler" in source.classes:
        extra["low_res_scheduler"] = make_scheduler("low_res_scheduler", source.configs["low_res_scheduler"])
    count = 0
    for name, module in modules.items():  # only now that all parts fit each other
        fill(name, module, source.weights(name, module), dtype, device)
        count += sum(tensor.nbytes for tensor in module.state_dict().values())
    loaded = LoadedModel(
        entry=entry,
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=text_encoders,
        tokenizers=tokenizers,
        scheduler_class=scheduler.__class__,
        scheduler_config=dict(scheduler.config),
        extra=extra,
        placement=placement,
        bytes=count,
    )
    loaded.apply(placement)
    return loaded


def _scheduler_config(entry: ModelEntry, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler's config with what the model's identity says."""
    merged = {**config, "prediction_type": entry.identity.prediction_type}
    if entry.identity.zero_terminal_snr:
        merged |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if entry.identity.family == "stable-diffusion" and entry.identity.variant != "lcm":
        # Early configs lack these; the stock pipelines correct them too.
        if "steps_offset" in merged or merged.get("_class_name") in ("PNDMScheduler", "DDIMScheduler"):
            merged["steps_offset"] = 1
        if merged.get("clip_sample") or merged.get("_class_name") == "DDIMScheduler":
            merged["clip_sample"] = False
    return merged


def _check_fit(unet: Any, vae: Any, text_encoders: tuple[Any, ...], tokenizers: tuple[Any, ...]) -> None:
    """Raise ModelError if components do not belong to each other."""
    for text_encoder, tokenizer in zip(text_encoders, tokenizers, strict=True):
        if len(tokenizer) > text_encoder.config.vocab_size:
            raise ModelError(
                f"The tokenizer knows {len(tokenizer):,} tokens, its text encoder {text_encoder.config.vocab_size:,}."
            )
    width = sum(text_encoder.config.hidden_size for text_encoder in text_encoders)
    if unet.config.cross_attention_dim != width:
        raise ModelError(
            f"The unet reads text of width {unet.config.cross_attention_dim}, the text encoders give {width}."
        )
    if unet.config.out_channels != vae.config.latent_channels:
        raise ModelError(
            f"The unet predicts {unet.config.out_channels} channels, the vae has {vae.config.latent_channels}."
        )


def load_pipeline(folder: str | Path, device: str = "auto") -> Any:
    """Return the text-to-image pipeline of a folder, in float32.

    device: "auto" takes CUDA, else MPS, else the CPU.
    Raises ModelError.
    """
    if problems := check_model_folder(folder):
        raise ModelError(" ".join(problems))
    # Imported late: these imports take seconds.
    import diffusers
    import torch
    import transformers

    from studio.diffusion.pipelines import StudioTextToImagePipeline

    chosen = choose_device(device)
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    pipeline_class: Any = StudioTextToImagePipeline
    try:
        pipe = pipeline_class.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
        pipe.to(chosen)
        if not chosen.startswith("mps"):  # not measured there
            pipe.unet.to(memory_format=torch.channels_last)  # faster: attention reads it without a copy
            if pipe.upscaler is not None:
                pipe.upscaler.to(memory_format=torch.channels_last)
    except Exception as problem:  # diffusers and torch raise many kinds for weights that do not fit their configs
        text = " ".join(str(problem).split())
        raise ModelError(f"The model folder {folder} could not be loaded: {text[:300]}") from problem
    pipe.set_progress_bar_config(disable=True)
    return pipe


def choose_device(device: str = "auto") -> str:
    """Return a device that torch has. Raises ModelError if it does not have the one named."""
    import torch

    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name, is_there in is_available.items() if is_there]
    if device == "auto":
        return available[0]
    if device.split(":")[0] not in available:
        raise ModelError(
            f"The device must be auto or one of those available here ({', '.join(available)}); it was {device!r}."
        )
    return device


_thread_count = 0  # of torch, as it chose it


def reserve_torch_threads() -> None:
    """Reserve torch's thread pool for the calling thread; threads that start to compute later compute alone.

    Each thread that computes has a pool of OpenMP threads. If all pools together have more threads than there are
    cores, they sleep between operations for as long as any of these threads lives. Every network call would take half
    as long again after another thread has decoded a picture.
    """
    import torch

    global _thread_count
    current = torch.get_num_threads()  # before it is set: the first question in a thread settles its number
    _thread_count = _thread_count or current
    torch.set_num_threads(_thread_count)
    # A thread sets its own number, and that of threads that start later.
    other = threading.Thread(target=torch.set_num_threads, args=(1,))
    other.start()
    other.join()


def settle_torch_threads() -> None:
    """Let the calling thread compute alone if another has reserved torch's thread pool. Call it before computing.

    Torch passes its number of threads on to the libraries that it uses. Without this call, a matrix product as a
    thread's first operation starts a pool of its own.
    """
    import torch

    torch.get_num_threads()
