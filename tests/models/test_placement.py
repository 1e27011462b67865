"""How a model is held in memory: chosen from numbers, each choice with its reason."""

from __future__ import annotations

import pytest

from studio.models.placement import GIB, Placement, choose_placement


def choose(**numbers) -> Placement:
    defaults = {"device_bytes": 24 * GIB, "model_bytes": 2 * GIB, "stored_dtype": "F16", "has_bf16": True}
    return choose_placement(**{"device": "cuda:0", **defaults, **numbers})


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ({}, "float16"),
        ({"stored_dtype": "float16", "device": "mps"}, "float16"),
        ({"stored_dtype": "F32"}, "float16"),
        ({"stored_dtype": "BF16"}, "bfloat16"),
        ({"stored_dtype": "BF16", "has_bf16": False}, "float16"),
        ({"stored_dtype": "F8_E4M3"}, "float16"),
        ({"device": "cpu"}, "float32"),
        ({"device": "cpu", "stored_dtype": "BF16"}, "float32"),
        ({"device": "cpu", "dtype": "bfloat16"}, "bfloat16"),
        ({"device": "cpu", "device_bytes": 4 * GIB}, "bfloat16"),
        ({"device": "cpu", "device_bytes": 4 * GIB, "has_bf16": False}, "float32"),
        ({"dtype": "float32"}, "float32"),
    ],
)
def test_the_number_format_follows_device_and_file(numbers, dtype):
    placement = choose(**numbers)
    assert placement.dtype == dtype and placement.reasons[0].startswith(f"{dtype}:")
    assert all(reason.endswith(".") for reason in placement.reasons)


def test_memory_decides_about_tiles_and_offload():
    """SDXL in float16, 6.5 GiB: it fits, it fits without room to decode, it does not fit."""
    model = int(6.5 * GIB)
    roomy, tight, small = (choose(model_bytes=model, device_bytes=size * GIB) for size in (12, 9, 6))
    assert (roomy.vae_tiling, roomy.offload) == (False, False)
    assert (tight.vae_tiling, tight.offload) == (True, False) and "1.6 GiB are left" in tight.reasons[-1]
    assert (small.vae_tiling, small.offload) == (True, True) and "take 6.5 GiB" in small.reasons[-1]
    on_cpu = choose(device="cpu", model_bytes=model, device_bytes=6 * GIB)
    assert on_cpu.vae_tiling and not on_cpu.offload


def test_milder_settings_end():
    placement, reasons = choose(), []
    while milder := placement.milder():
        assert milder.dtype == placement.dtype  # the pictures stay the same
        placement = milder
        reasons.append(placement.reasons[-1])
    assert placement.vae_tiling and placement.offload and len(reasons) == 2
    on_cpu = choose(device="cpu").milder()
    assert on_cpu.vae_tiling and on_cpu.milder() is None
