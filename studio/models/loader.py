"""Load a model folder safely: check its files first, then read safetensors only."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        "pipeline": the other fields of model_index.json, such as force_zeros_for_empty_prompt.
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

    def reduce_memory(self) -> str | None:
        """Apply the next setting that needs less memory. Return its sentence, or None if there is none."""
        raise NotImplementedError


def load_latent(entry: ModelEntry, placement: Placement) -> LoadedModel:
    """Load a model of the catalog that is not of the bundled kind. Raises ModelError with one sentence."""
    raise NotImplementedError


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
