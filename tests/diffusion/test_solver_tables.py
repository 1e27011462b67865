"""Solver tables: kept in a config, found by steps and guidance, used for the network that they were fitted to alone."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from PIL import Image

from studio.diffusion.guidance import apply_guidance
from studio.diffusion.pipelines import StudioInpaintPipeline, StudioTextToImagePipeline
from studio.diffusion.schedulers.samplers import make_sampler
from studio.diffusion.schedulers.solver_tables import SolverTable, SolverTables, fingerprint
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.training.export import save_model
from tests.diffusion.conftest import random_pipeline

PROMPTS = ["a red apple", "a blue cat", "a house"]


def made_up(count: int, guidance_scale: float, seed: int = 0) -> SolverTable:
    """Return times, coefficients and guidance a little off DPM-Solver++, with a full history."""
    generator = np.random.default_rng(seed)
    plan = StudioScheduler.from_config(STUDIO_CONFIG).plan(count)
    b = np.zeros((count, count))
    b[:, :2] = plan.b[:, :count]
    b += 0.02 * np.tril(generator.standard_normal((count, count)))
    times = plan.timesteps.numpy() - np.arange(count) * 7.5
    coarse_a, coarse_b = (0.02 * generator.standard_normal(shape) for shape in (count, (count, count)))
    guidance = 1 + 0.1 * generator.standard_normal(count)
    return SolverTable(
        guidance_scale,
        *(tuple(numbers.tolist()) for numbers in (times, plan.a)),
        tuple(map(tuple, b.tolist())),
        tuple(coarse_a.tolist()),
        tuple(map(tuple, np.tril(coarse_b).tolist())),
        tuple(guidance.tolist()),
    )


def with_tables(pipe, model: str | None = None) -> StudioTextToImagePipeline:
    """Return the same networks with tables for four calls, fitted to the fingerprint `model`; None: to theirs."""
    tables = (made_up(4, 1.0), made_up(4, 3.0, 1), made_up(2, 3.0, 2))
    config = SolverTables(fingerprint(pipe.unet) if model is None else model, tables).to_config()
    scheduler = StudioScheduler.from_config(pipe.scheduler.config, solver_tables=config)
    return StudioTextToImagePipeline(**{**pipe.components, "scheduler": scheduler})


def times(pipe, **options) -> list[float]:
    (row,) = pipe.prepare(["a red apple"], seeds=[1], **{"num_inference_steps": 4, **options})
    return row.stage.stepper.times


def painted(rows, pipe) -> torch.Tensor:
    while not all(row.finished for row in rows):
        pipe.denoise_step([row for row in rows if not row.finished])
    return torch.stack([row.sample for row in rows])


def test_a_config_keeps_tables_exactly():
    tables = SolverTables("abc", (made_up(4, 1.0), made_up(5, 3.0, 1)))
    config = tables.to_config()
    assert SolverTables.from_config(json.loads(json.dumps(config))) == tables
    assert json.loads(json.dumps(config)) == config
    assert SolverTables.from_config(None) == SolverTables("", ())


def test_an_earlier_table_has_no_coarse_part_and_constant_guidance():
    config = SolverTables("abc", (made_up(4, 1.0),)).to_config()
    for name in ("coarse_a", "coarse_b", "guidance"):
        del config["tables"][0][name]
    (table,) = SolverTables.from_config(config).tables
    assert table == replace(made_up(4, 1.0), coarse_a=(0.0,) * 4, coarse_b=((0.0,) * 4,) * 4, guidance=(1.0,) * 4)


def test_invalid_tables_are_refused():
    one = SolverTable(1.0, (9.0,), (0.0,), ((1.0,),), (0.0,), ((0.0,),), (1.0,))
    for numbers in (
        {"timesteps": ()},
        {"a": ()},
        {"b": ((1.0, 0.0),)},
        {"coarse_a": ()},
        {"coarse_b": ()},
        {"guidance": (1.0, 1.0)},
    ):
        with pytest.raises(ValueError, match="must have as many a"):
            replace(one, **numbers)
    for name in ("timesteps", "a", "coarse_a", "guidance"):
        with pytest.raises(ValueError, match="must be finite"):
            replace(one, **{name: (math.inf,)})
    with pytest.raises(ValueError, match="guidance_scale of a solver table is 0"):
        replace(one, guidance_scale=0.0)
    with pytest.raises(ValueError, match=r"guidance of a solver table is \(0.0,\)"):
        replace(one, guidance=(0.0,))
    for config in ({}, {"model": "abc", "tables": [{"timesteps": [1.0]}]}, {"model": "abc", "tables": 7}):
        with pytest.raises(ValueError, match="solver_tables is not what the fitting wrote"):
            StudioScheduler(solver_tables=config)


def test_the_nearest_guidance_is_found_within_its_range():
    tables = SolverTables("abc", tuple(made_up(4, scale) for scale in (1.0, 2.0, 3.0, 5.0)))

    def found(guidance_scale: float) -> float | None:
        table = tables.find(4, guidance_scale)
        return None if table is None else table.guidance_scale

    expected = {0.0: None, 0.7: None, 0.8: 1, 1: 1, 1.5: 2, 2: 2, 2.4: 2, 2.5: 3, 3: 3, 4: 5, 7: 5, 7.2: None, 20: None}
    assert {scale: found(scale) for scale in expected} == expected
    assert tables.find(5, 3.0) is None


def test_a_table_of_dpm_solver_pp_is_dpm_solver_pp(pipe):
    plan = pipe.scheduler.plan(4)
    b = torch.zeros(4, 4, dtype=torch.float64)
    b[:, :2] = plan.b
    times, a, b, nothing = (part.tolist() for part in (plan.timesteps, plan.a, b, torch.zeros(4, 4)))
    none = tuple(map(tuple, nothing))
    same = SolverTable(3.0, tuple(times), tuple(a), tuple(map(tuple, b)), none[0], none, (1.0,) * 4)
    config = SolverTables(fingerprint(pipe.unet), (same,)).to_config()
    scheduler = StudioScheduler.from_config(pipe.scheduler.config, solver_tables=config)
    fitted = StudioTextToImagePipeline(**{**pipe.components, "scheduler": scheduler})
    one, other = (
        painted(each.prepare(PROMPTS, num_inference_steps=4, seeds=[1, 2, 3], size=16), each) for each in (pipe, fitted)
    )
    assert fitted.prepare(PROMPTS, num_inference_steps=4)[0].stage.stepper.plan.b.shape == (4, 4)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_diffusers_interface_takes_a_table_and_paints_what_the_pipeline_does(pipe):
    fitted = with_tables(pipe)
    scheduler, table = fitted.scheduler, fitted.scheduler.tables.find(4, 1.0)
    (row,) = fitted.prepare(["a cat"], num_inference_steps=4, guidance_scale=1, seeds=[5], size=16)
    x = row.sample[None]
    scheduler.set_timesteps(table=table)
    assert scheduler.num_inference_steps == 4
    text, mask = fitted.encode(["a cat"])
    for t in scheduler.timesteps:
        given = torch.cat([x, torch.zeros(1, 7, 16, 16)], 1)
        with torch.no_grad():
            x = scheduler.step(fitted.unet(given, t, text, mask).sample, t, x).prev_sample
    torch.testing.assert_close(painted([row], fitted), x, rtol=0, atol=1e-5)
    scheduler.set_timesteps(4)  # unasked it stays DPM-Solver++
    assert torch.equal(scheduler.timesteps, StudioScheduler.from_config(STUDIO_CONFIG).plan(4).timesteps.float())
    with pytest.raises(ValueError, match="begin_index is 1; it must be 0 with a table"):
        scheduler.plan(table=table, begin_index=1)


def test_each_call_is_guided_by_its_share_of_the_scale(pipe):
    """Below the pipeline: the network asked by hand, guided by equation 6, and the scheduler's own steps."""
    fitted = with_tables(pipe)
    scheduler, table = fitted.scheduler, fitted.scheduler.tables.find(4, 2.8)
    (row,) = fitted.prepare(["a cat"], num_inference_steps=4, guidance_scale=2.8, seeds=[5], size=16)
    x, scales = row.sample[None], [1 + 1.8 * share for share in table.guidance]
    text, mask = fitted.encode(["", "a cat"])
    scheduler.set_timesteps(table=table)
    for t, scale in zip(scheduler.timesteps, scales, strict=True):
        assert row.guidance_scale == pytest.approx(scale) != 2.8
        fitted.denoise_step([row])
        assert row.record.guidance_scale == pytest.approx(scale)
        given = torch.cat([x, torch.zeros(1, 7, 16, 16)], 1).expand(2, -1, -1, -1)
        with torch.no_grad():
            without, with_words = fitted.unet(given, t.expand(2), text, mask).sample.split(1)
        x = scheduler.step(apply_guidance(without, with_words, scale), t, x).prev_sample
    torch.testing.assert_close(row.sample[None], x, rtol=0, atol=1e-5)


def test_guidance_in_one_pass_is_at_most_the_trained_scale(pipe):
    """And the record has the scale that the network was called with."""
    strong = replace(made_up(4, 5.0), guidance=(1.2, 1.0, 0.9, 1.1))
    config = SolverTables(fingerprint(pipe.unet), (strong,)).to_config()
    scheduler = StudioScheduler.from_config(pipe.scheduler.config, solver_tables=config)
    fitted = StudioTextToImagePipeline(**{**pipe.components, "scheduler": scheduler})
    (row,) = fitted.prepare(["a cat"], num_inference_steps=4, guidance_scale=5.0, seeds=[5], one_pass=True, size=16)
    inputs, scales = [], []
    with fitted.unet.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[6].item())):
        while not row.finished:
            fitted.denoise_step([row])
            scales.append(row.record.guidance_scale)
    assert scales == pytest.approx([5, 5, 4.6, 5]) and inputs == pytest.approx(scales)


def test_only_runs_that_were_fitted_use_tables(pipe):
    fitted, plain = with_tables(pipe), times(pipe)
    assert times(fitted) == times(fitted, sampler="studio") == list(made_up(4, 3.0, 1).timesteps) != plain
    assert times(fitted, guidance_scale=1) == list(made_up(4, 1.0).timesteps)
    for options in (
        {"sampler": UniPCMultistepScheduler.from_config(fitted.scheduler.config)},
        {"guidance_scale": 9.0},
        {"guidance_interval": (0.1, 1.0)},
        {"sampler": "dpm++2m"},
        {"images": [Image.new("RGB", (32, 32))], "strength": 1.0},
    ):
        assert times(fitted, **options) == plain
    assert times(fitted, num_inference_steps=5) == times(pipe, num_inference_steps=5)
    picture, mask = Image.new("RGB", (32, 32)), Image.new("L", (32, 32), 255)
    (hole,) = StudioInpaintPipeline(**fitted.components).prepare(["a cat"], [picture], [mask], num_inference_steps=4)
    assert hole.stage.stepper.times == plain
    (row,) = fitted.prepare(["a cat"], seeds=[1], num_inference_steps=4, size=32, finishing_steps=4)
    painted([row], fitted)
    assert row.stage.stepper.times == plain  # super-resolution of what was painted


def test_other_weights_use_no_tables(pipe):
    assert times(with_tables(pipe, model="0123456789abcdef")) == times(pipe)
    other = random_pipeline()
    with torch.no_grad():
        next(other.unet.parameters())[0] += 0.5
    assert fingerprint(other.unet) != fingerprint(pipe.unet)
    other.scheduler = with_tables(pipe).scheduler
    assert times(other) == times(pipe)


def test_the_fingerprint_is_the_same_in_half_precision():
    """As it is loaded from one file, of half precision, and compiled or not."""
    one = random_pipeline().unet.half()
    names = [fingerprint(copy.deepcopy(one).to(dtype)) for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    compiled = torch.nn.Module()  # as torch.compile wraps it
    compiled._orig_mod = one
    names.append(fingerprint(compiled))
    names.append(fingerprint(copy.deepcopy(one).to(memory_format=torch.channels_last)))
    assert len(set(names)) == 1 and len(names[0]) == 16
    assert fingerprint(copy.deepcopy(one).to("meta")) == ""


def test_a_picture_of_a_batch_equals_the_picture_alone(pipe):
    """Rows with tables of other depths, and rows without, in the same calls."""
    fitted = with_tables(pipe)

    def rows():
        return [
            *fitted.prepare(PROMPTS, num_inference_steps=4, seeds=[1, 2, 3], size=16),
            *fitted.prepare(["a boat"], num_inference_steps=4, guidance_scale=1.2, seeds=[4], size=16),
            *fitted.prepare(["a boat"], num_inference_steps=6, seeds=[4], size=16),
            *fitted.prepare(["a boat"], num_inference_steps=2, seeds=[5], size=16),  # as deep as those without
        ]

    together = painted(rows(), fitted)
    alone = torch.cat([painted([row], fitted) for row in rows()])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_saved_is_loaded(tmp_path):
    pipe = with_tables(random_pipeline())
    expected, tables = times(pipe), pipe.scheduler.tables
    save_model(pipe, tmp_path)
    loaded = StudioTextToImagePipeline.from_pretrained(tmp_path)
    assert loaded.scheduler.tables == tables
    assert times(loaded) == expected


@pytest.mark.parametrize("stock", [DDIMScheduler, UniPCMultistepScheduler])
def test_tables_survive_a_stock_scheduler(pipe, stock):
    fitted = with_tables(pipe).scheduler
    back = StudioScheduler.from_config(stock.from_config(fitted.config).config)
    assert back.tables == fitted.tables and back.tables.tables
    assert make_sampler("studio", fitted.config).tables == fitted.tables
    assert "solver_tables" not in make_sampler("unipc", fitted.config).config
