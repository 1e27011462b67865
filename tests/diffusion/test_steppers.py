"""Steppers: pure functions, which many pictures share."""

from __future__ import annotations

import pytest
import torch

from studio.diffusion.pipelines.base import MAX_STEPPERS
from studio.diffusion.sampling.steppers import DiffusersStepper
from studio.diffusion.schedulers.samplers import SAMPLERS
from tests.diffusion.helpers import paint_rows


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "studio"])
def test_a_step_taken_twice_is_the_same_step(pipe, name):
    """The state, a scheduler of diffusers, is copied and not changed."""
    (row,) = pipe.prepare(["a cat"], seeds=[0], sampler=name, num_inference_steps=5, size=16)
    stepper = row.stage.stepper
    assert isinstance(stepper, DiffusersStepper)
    for step in range(3):
        state, sample, generator_state = row.stage.stepper_state, row.sample, row.generator.get_state()
        stepper.network_input(state, sample, step)
        results = []
        for _ in range(2):
            row.generator.set_state(generator_state)
            results.append(stepper.step(state, torch.zeros_like(sample), sample, step, row.generator)[0])
        assert torch.equal(*results)
        row.generator.set_state(generator_state)
        pipe.denoise_step([row])


def test_pictures_share_steppers_and_are_independent(pipe):
    first, second = pipe.prepare(["a cat", "a cat"], seeds=[1, 1], sampler="unipc", num_inference_steps=4, size=16)
    assert first.stage.stepper is second.stage.stepper
    pipe.denoise_step([first])
    (one,), (other,) = paint_rows([first], pipe), paint_rows([second], pipe)
    assert (one == other).all()


def test_another_scheduler_makes_other_steppers(pipe):
    (before,) = pipe.prepare(["a cat"], seeds=[0])
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, solver_order=1)
    (after,) = pipe.prepare(["a cat"], seeds=[0])
    assert before.stage.stepper.plan.b.shape[1] == 2 and after.stage.stepper.plan.b.shape[1] == 1


def test_the_number_of_kept_steppers_is_bounded(pipe):
    for steps in range(1, MAX_STEPPERS + 5):
        pipe.prepare(["a cat"], seeds=[0], num_inference_steps=steps)
    assert len(pipe._steppers) == MAX_STEPPERS


def test_a_call_that_fails_changes_no_picture(pipe, monkeypatch):
    (row,) = pipe.prepare(["a cat"], seeds=[0], sampler="ddpm", num_inference_steps=3, size=16)
    generator_state, sample = row.generator.get_state(), row.sample

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("studio.diffusion.sampling.batched_call.StepRecord", fail)  # the last value that a step makes
    with pytest.raises(MemoryError):
        pipe.denoise_step([row])
    assert torch.equal(row.generator.get_state(), generator_state)
    assert row.step == 0 and row.sample is sample and row.record is None
