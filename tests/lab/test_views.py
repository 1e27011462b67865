"""What the tab draws is plain JSON and says what the arrays say."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler
from PIL import Image

from studio.engine.trace import TraceModel
from studio.lab.attention import inspection_pipeline
from studio.lab.latents import preview_rgb
from studio.lab.pack import pack_exact, unpack_array
from studio.lab.point_model import GuidanceTarget, PointModel
from studio.lab.views.compare import ComparedRun, compare_view
from studio.lab.views.forward import forward_numbers, forward_view, latent_forward_numbers, latent_forward_view
from studio.lab.views.inspection import inspection_view
from studio.lab.views.latents import latents_view
from studio.lab.views.plane import PARTICLES, flow_view, parse_cloud, plane_view
from studio.lab.views.reverse import channel_sheets, explain_stage, reverse_view
from tests.lab.latent_runs import PREVIEW, SD_CONFIG, latent_trace
from tests.lab.test_reverse import PROMPT, run


def opened(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


RGB = TraceModel()
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def test_forward_view_and_numbers_agree():
    view = json.loads(json.dumps(forward_view(PICTURE, 32, seed=5)))
    picture, numbers = forward_numbers(PICTURE, 321, "linear", size=32, seed=5)
    log_snr = unpack_array(view["schedules"]["linear"]["log_snr"])[321]
    alpha, sigma = np.sqrt(1 / (1 + np.exp([-log_snr, log_snr])))
    assert (alpha, sigma) == pytest.approx((numbers["alpha"], numbers["sigma"]), abs=1e-6)
    x_t = alpha * unpack_array(view["x0"]) + sigma * unpack_array(view["eps"])  # what the browser does
    assert x_t.var() == pytest.approx(numbers["measured"]["variance"], rel=1e-3)
    assert np.abs((np.clip(x_t, -1, 1) + 1) * 127.5 - np.asarray(picture).transpose(2, 0, 1)).max() < 1
    assert view["last"] == 999 and json.dumps(numbers, allow_nan=False)
    assert forward_numbers(Image.new("RGB", (8, 8), (128, 128, 128)), 0, size=16)[1]["snr_db"] > 20
    np.testing.assert_allclose(unpack_array(pack_exact([1.5, -2])), [1.5, -2])


def test_reverse_and_inspection_views(pipe):
    trace = run(pipe, 5, size=32)
    stages = json.loads(json.dumps(reverse_view(trace)))
    assert [(stage["width"], len(stage["steps"])) for stage in stages] == [(16, 5), (32, 2)]
    sheet = opened(stages[0]["sheets"]["x0"])
    assert sheet.shape == (16, 5 * 16, 3)
    last = (np.clip(trace.stages[0].x0[-1], -1, 1) + 1) * 127.5
    assert np.abs(sheet[:, -16:].transpose(2, 0, 1) - last).max() <= 0.51
    assert "difference" in stages[0]["sheets"] and "difference" not in stages[1]["sheets"]
    assert list(stages[1]["condition"]) == ["low-resolution picture"]
    look = json.loads(json.dumps(inspection_view(inspection_pipeline(pipe), PROMPT, trace, max_steps=3)))
    assert [each["index"] for each in look["looks"]] == [0, 2, 4] and len(look["words"]) == 8
    assert opened(look["looks"][0]["maps"]).shape == (16, 8 * 16)
    assert sum(look["looks"][0]["shares"]) == pytest.approx(1, abs=1e-4)
    assert look["levels"][0]["shape"] == [16, 8, 8] and opened(look["looks"][0]["levels"][0]).shape == (8, 8 * 6)


def test_latents_are_shown_by_the_linear_map_and_by_channel():
    trace = latent_trace(EulerDiscreteScheduler, steps=3)
    (stage,) = json.loads(json.dumps(reverse_view(trace, "euler")))
    assert (stage["latent"], stage["channels"], stage["columns"], stage["width"]) == (True, 4, 2, 8)
    assert [step["how"] for step in stage["steps"]] == ["exact"] * 3 and stage["condition"] == {}
    x0 = (np.clip(preview_rgb(trace.stages[0].x0[1], PREVIEW), -1, 1) + 1) * 127.5
    assert np.abs(opened(stage["sheets"]["x0"])[:, 8:16].transpose(2, 0, 1) - x0).max() <= 0.51
    eps = (np.clip(trace.steps[1].eps.transpose(1, 2, 0) @ PREVIEW[:4] / 2, -1, 1) + 1) * 127.5
    assert np.abs(opened(stage["sheets"]["eps"])[:, 8:16] - eps).max() <= 0.51
    sheets = channel_sheets(explain_stage(trace, 0, "euler"))
    assert sheets.keys() == stage["sheets"].keys()
    values = (np.clip(trace.stages[0].x_t[2, 3] / 4, -1, 1) / 2 + 0.5) * 255  # the last channel, at the lower right
    assert np.abs(opened(sheets["x_t"])[8:, 2 * 16 + 8 :] - values).max() <= 0.51


def test_latent_runs_are_compared():
    runs = [latent_trace(EulerDiscreteScheduler, steps=steps) for steps in (3, 6, 40)]
    reference = runs[2].stages[0].x0[-1]
    compared = [ComparedRun("", trace.stages[0], reference, trace.model, "euler") for trace in runs[:2]]
    few, more = compare_view(compared)["runs"]
    assert few["distance"][-1] > more["distance"][-1] > 0
    assert opened(few["x0"]).shape == (8, 4 * 8, 3)


def test_forward_noise_in_latent_space():
    latents = np.random.default_rng(1).standard_normal((4, 16, 16), dtype=np.float32)
    view = json.loads(json.dumps(latent_forward_view(latents, PREVIEW, 5, SD_CONFIG)))
    assert (view["size"], view["channels"]) == (16, 4) and np.allclose(view["preview"], PREVIEW)
    assert [row["name"] for row in view["preparation"]] == ["latents", *(f"channel {i}" for i in range(1, 5))]
    picture, numbers = latent_forward_numbers(latents, PREVIEW, 321, "model", 5, SD_CONFIG)
    log_snr = unpack_array(view["schedules"]["model"]["log_snr"])[321]
    alpha, sigma = np.sqrt(1 / (1 + np.exp([-log_snr, log_snr])))
    assert (alpha, sigma) == pytest.approx((numbers["alpha"], numbers["sigma"]), abs=1e-6)
    x_t = alpha * unpack_array(view["x0"]) + sigma * unpack_array(view["eps"])  # what the browser does
    shown = (np.clip(np.einsum("chw,cr->hwr", x_t, PREVIEW[:4]) + PREVIEW[4], -1, 1) + 1) * 127.5
    assert np.abs(shown - np.asarray(picture)).max() < 1


def test_a_picture_beside_its_latents():
    latents = np.random.default_rng(1).standard_normal((4, 5, 4), dtype=np.float32)
    picture = PICTURE.resize((32, 40))
    view = json.loads(json.dumps(latents_view(picture, latents, PREVIEW, picture)))
    assert (view["pixel_values"], view["latent_values"], view["ratio"]) == (32 * 40 * 3, 80, 48)
    assert view["reconstruction_error"] == 0 and view["latent_shape"] == [4, 5, 4]
    assert opened(view["preview"]).shape == (5, 4, 3)
    assert [opened(channel["map"]).shape for channel in view["channels"]] == [(5, 4)] * 4
    black, white = Image.new("RGB", (32, 40)), Image.new("RGB", (32, 40), "white")
    assert latents_view(black, latents, PREVIEW, white)["reconstruction_error"] == 2


def test_compare_view(pipe):
    """Each run is measured against an end of its own, and Heun's calls are counted, not its steps."""
    reference, other = (run(pipe, 40, guidance_scale=scale).stages[0].x0[-1] for scale in (3.0, 1.0))
    runs = [
        (4, "studio", 3.0, reference),
        (12, "ddim", 1.0, other),
        (5, "heun", 3.0, reference),
        (50, "heun", 3.0, reference),
    ]
    compared = [
        ComparedRun(sampler, run(pipe, steps, sampler=sampler, guidance_scale=scale).stages[0], end, RGB, sampler, "id")
        for steps, sampler, scale, end in runs
    ]
    entries = json.loads(json.dumps(compare_view(compared)))["runs"]
    assert [entry["calls"] for entry in entries] == [4, 12, 9, 99]
    assert [entry["rows"] for entry in entries] == [8, 12, 18, None]  # of the last not every call was kept
    (third,) = compare_view([replace(compared[0], tiles=2, passes=3)])["runs"]
    assert third["rows"] == 4 * 2 * 3
    assert all(entry["called"][-1] == entry["calls"] and len(entry["t"]) == len(entry["called"]) for entry in entries)
    assert all(entry["t"][-1] == 0 for entry in entries) and not any(entry["fitted"] for entry in entries)
    assert all(entry["distance"][-1] < 0.2 * entry["distance"][0] for entry in entries)
    with pytest.raises(ValueError, match="of one size"):
        compare_view([ComparedRun("", compared[0].stage, np.zeros((3, 4, 4), np.float32), RGB)])


def test_plane_views():
    toy = PointModel(parse_cloud("letters", "A"))
    still = json.loads(json.dumps(plane_view(toy)))
    assert still["times"][0] == 999 and still["times"][-1] == 0 and len(still["times"]) == 41
    assert np.abs(unpack_array(still["forward"])[-1] - toy.cloud.points[:PARTICLES]).max() < 1e-3
    list(toy.train(steps=3))
    moving = json.loads(json.dumps(flow_view(toy, GuidanceTarget(1, 0, 2.0))))
    assert moving["steps"] == 3 and len(moving["losses"]) == 3
    assert unpack_array(moving["reverse"]).shape == (41, PARTICLES, 2)
    assert unpack_array(moving["arrows"]).shape == (40, 225, 2)
    with pytest.raises(ValueError, match="shape is 'cube'; it must be one of two moons, spiral, rings, letters"):
        parse_cloud("cube")
