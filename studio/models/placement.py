"""Where a model runs and in which number format: chosen from plain numbers, each choice with its reason. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

GIB = 1 << 30
BYTES_PER_NUMBER = {"float32": 4, "float16": 2, "bfloat16": 2}
FROM_SAFETENSORS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # other stored formats become float32
# What a VAE needs for a picture of 1024 x 1024 px beside the weights, in float32: about 4 KB a px (measured).
DECODE_BYTES = 4 * GIB
TILED_DECODE_BYTES = GIB
USABLE = 0.9  # of the device's memory; the rest is the driver's and fragmentation


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a model is held in memory.

    device: "cpu", "cuda:0", "mps" ...
    dtype: of the weights and of the calculation: "float32", "float16", "bfloat16".
    vae_tiling: the VAE decodes large pictures in tiles.
    offload: components wait in the CPU's memory, and are on the device only while they compute.
    reasons: a sentence for each choice.
    """

    device: str
    dtype: str
    vae_tiling: bool = False
    offload: bool = False
    reasons: tuple[str, ...] = ()

    def milder(self) -> Placement | None:
        """Return the next setting that needs less memory, its reason last; None if there is none.

        The number format stays: it would change the pictures of jobs that run.
        """
        if not self.vae_tiling:
            return self._changed("Memory was full, so the VAE decodes in tiles.", vae_tiling=True)
        if not self.offload and self.device != "cpu":
            return self._changed(
                "Memory was full, so components are on the device only while they compute.", offload=True
            )
        return None

    def _changed(self, reason: str, *, vae_tiling: bool = True, offload: bool = False) -> Placement:
        return replace(self, vae_tiling=vae_tiling, offload=offload, reasons=(*self.reasons, reason))


def choose_placement(
    *, device: str, device_bytes: int, model_bytes: int, stored_dtype: str, has_bf16: bool, dtype: str = "auto"
) -> Placement:
    """Return how a model is best held on a device.

    device_bytes: memory that the device has for models. model_bytes: of the weights as stored.
    stored_dtype: of the weights, "float32" or as safetensors names it, "F32".
    has_bf16: whether the device calculates in bfloat16.
    dtype: what a person asks for: "auto", "float32", "float16" or "bfloat16".
    """
    stored_dtype = FROM_SAFETENSORS.get(stored_dtype, stored_dtype)
    if stored_dtype not in BYTES_PER_NUMBER:
        stored_dtype = "float32"
    numbers = model_bytes / BYTES_PER_NUMBER[stored_dtype]
    room = device_bytes * USABLE
    chosen, reason = dtype, f"{dtype}: as set."
    if dtype == "auto":
        chosen, reason = _choose_dtype(device, room, numbers, stored_dtype, has_bf16)
    reasons = [reason, "Attention: PyTorch's scaled dot product, which needs the least memory."]
    needed = numbers * BYTES_PER_NUMBER[chosen]
    decode = DECODE_BYTES * BYTES_PER_NUMBER[chosen] / 4
    vae_tiling = offload = False
    if needed + decode > room:
        vae_tiling = True
        reasons.append(f"The VAE decodes in tiles: {_gib(room - needed)} are left beside the weights.")
        if device != "cpu" and needed + TILED_DECODE_BYTES > room:
            offload = True
            reasons.append(
                f"Components are on the device only while they compute: the weights take {_gib(needed)}, "
                f"the device has {_gib(device_bytes)}."
            )
    return Placement(device=device, dtype=chosen, vae_tiling=vae_tiling, offload=offload, reasons=tuple(reasons))


def _choose_dtype(device: str, room: float, numbers: float, stored_dtype: str, has_bf16: bool) -> tuple[str, str]:
    if device == "cpu":
        if 4 * numbers > room and has_bf16:
            return "bfloat16", f"bfloat16: the weights would take {_gib(4 * numbers)} in float32."
        return "float32", "float32: a CPU calculates it exactly, and float16 slowly."
    if stored_dtype == "bfloat16" and has_bf16:
        return "bfloat16", "bfloat16: as the weights are stored."
    if stored_dtype == "float16":
        return "float16", "float16: as the weights are stored."
    return "float16", f"float16: half the memory of {stored_dtype}, and faster on this device."


def _gib(count: float) -> str:
    return f"{max(count, 0.0) / GIB:.1f} GiB"
