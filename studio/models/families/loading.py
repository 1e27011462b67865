"""Open the models of a catalog: how large each one is in memory, where it runs, and which family loads it.

Importing this module is cheap: torch is imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from studio.engine.backend import Backend
from studio.engine.checks import InvalidRequest
from studio.models.cache import ModelCache
from studio.models.catalog import Catalog, ModelEntry
from studio.models.families.studio import StudioBackend
from studio.models.formats import ModelError
from studio.models.identify import STUDIO
from studio.models.loader import choose_device, load_latent, load_pipeline, reserve_torch_threads
from studio.models.placement import BYTES_PER_NUMBER, Placement, choose_placement

# Of a device's memory, for weights; the rest is for what calls need, and on a CPU for other programs.
CPU_SHARE, GPU_SHARE = 0.6, 0.85
# Where a container's limit stands, with cgroups 2 and 1.
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def open_models(
    catalog: Catalog, *, device: str = "auto", memory: int | None = None, dtype: str = "auto"
) -> ModelCache:
    """Return the models of a catalog, for the engine; none is loaded yet.

    device: "auto" takes CUDA, else MPS, else the CPU.
    memory: bytes that loaded models may take; None: a share of what the device has.
    dtype: number format of latent models, see `choose_placement`.
    """
    opener = ModelOpener(catalog, device, memory, dtype)
    models = ModelCache(
        catalog.get().id,
        opener.load,
        size=opener.size,
        budget=lambda: opener.budget,
        version=opener.version,
        claim_thread=reserve_torch_threads,
    )
    opener.models = models
    return models


class ModelOpener:
    """Loads models of a catalog, each by its family."""

    models: ModelCache

    def __init__(self, catalog: Catalog, device: str, memory: int | None, dtype: str) -> None:
        self._catalog, self._wanted_device, self._memory, self._dtype = catalog, device, memory, dtype

    @cached_property
    def device(self) -> str:
        """The device of all models. Raises ModelError if the one named is not there."""
        return choose_device(self._wanted_device)

    @cached_property
    def budget(self) -> int:
        """Bytes that loaded models may take."""
        if self._memory is not None:
            return self._memory
        return int(device_memory(self.device) * (CPU_SHARE if self.device == "cpu" else GPU_SHARE))

    def size(self, model_id: str) -> int:
        """Return the bytes that a model takes in memory. Raises InvalidRequest, ModelError."""
        entry = self._catalog.get(model_id)
        if entry.identity.family == STUDIO:
            return 4 * entry.parameters  # float32
        placement = self.place(entry)
        size = BYTES_PER_NUMBER[placement.dtype] * entry.parameters
        return min(size, self.budget) if placement.offload else size

    def version(self, model_id: str) -> Hashable:
        """Return what a person may set otherwise, so that the model is loaded again; None for a model that is gone."""
        try:
            return self._catalog.get(model_id).identity
        except InvalidRequest:
            return None

    def place(self, entry: ModelEntry) -> Placement:
        """Return how a latent model is held in memory."""
        return choose_placement(
            device=self.device,
            device_bytes=self.budget,
            model_bytes=entry.bytes,
            stored_dtype=entry.dtype,
            has_bf16=_has_bf16(self.device),
            dtype=self._dtype,
        )

    def load(self, model_id: str) -> Backend:
        """Load a model. Raises InvalidRequest, ModelError."""
        entry = self._catalog.get(model_id)
        if entry.problems:
            raise ModelError(" ".join(entry.problems))
        if entry.identity.family == STUDIO:
            return StudioBackend(load_pipeline(entry.path, self.device), entry.id)
        from studio.models.latent.backend import LatentBackend

        return LatentBackend(load_latent(entry, self.place(entry)), self._find)

    def _find(self, model_id: str) -> Any:
        """Return another loaded model, such as a refiner."""
        backend = self.models.get(model_id)
        assert backend is not None, f"{model_id} is not loaded"
        return backend


def device_memory(device: str) -> int:
    """Return the bytes of memory that a device has; on a CPU what this process may use."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[1]
    if device == "mps":
        return torch.mps.recommended_max_memory()
    limits = [int(psutil.virtual_memory().total)]
    for path in MEMORY_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(limits)


def _has_bf16(device: str) -> bool:
    """Return whether a device calculates in bfloat16, not only stores it."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    untyped: Any = torch.cpu
    return device == "cpu" and bool(untyped._is_avx512_bf16_supported() or untyped._is_amx_tile_supported())
