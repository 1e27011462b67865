import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from studio.engine import recorder as recorder_module
from studio.engine.recorder import MAX_KEPT_STEPS, MAX_TOTAL_BYTES, MAX_TRACE_BYTES, ByteBudget, TraceRecorder
from studio.engine.requests import TextToImage
from studio.engine.trace import FORMAT, FORMAT_1, Trace, TraceModel
from tests.fakes import FakeBackend, FakeRow, resolve


def recorded(
    steps: int = 12, *, size: int = 64, guidance: float = 3.0, grows: bool = False, budget: ByteBudget | None = None
) -> tuple[Trace | None, list[FakeRow]]:
    """The trace of a run, and the row as it was before each step."""
    sampler = FakeBackend(sample_size=size, grows=grows)
    (row,) = sampler.prepare(resolve(TextToImage("a cat", steps=steps, guidance=guidance, seed=4)))
    recorder, seen = TraceRecorder(row, budget or ByteBudget()), []
    while not row.finished:
        seen.append((row.sample, row.level(row.step)))
        sampler.denoise_step([row])
        seen[-1] += (row.record,)
        recorder.record()
    trace = recorder.trace()
    recorder.close()
    return trace, seen


def assert_equal(left: Trace, right: Trace) -> None:
    assert (left.num_steps, left.seed, len(left.stages)) == (right.num_steps, right.seed, len(right.stages))
    assert (left.model.id, left.model.space) == (right.model.id, right.model.space)
    assert left.model.scheduler_config == right.model.scheduler_config
    assert np.array_equal(left.model.preview, right.model.preview)
    for a, b in zip(left.stages, right.stages, strict=True):
        assert (a.task, a.noise_level) == (b.task, b.noise_level)
        assert a.arrays().keys() == b.arrays().keys()
        for name, array in a.arrays().items():
            assert array.dtype == b.arrays()[name].dtype and (array == b.arrays()[name]).all()


def test_a_trace_holds_every_step_as_it_was():
    trace, seen = recorded(12)
    assert [step.step for step in trace.steps] == list(range(12)) and trace.num_steps == 12 and trace.seed == 4
    for step, (x_t, (alpha, sigma), record) in zip(trace.steps, seen, strict=True):
        assert (step.x_t == x_t).all() and (step.alpha, step.sigma) == (alpha, sigma)
        assert (step.x0 == record.pred_original_sample).all() and step.timestep == record.timestep
        assert (step.guidance_difference == record.guidance_difference).all() and step.guidance_scale == 3.0
    assert [step.next_x_t is None for step in trace.steps] == [False] * 11 + [True]


def test_the_predicted_noise_follows_from_the_rest():
    """x_t = alpha x0 + sigma eps; and for a deterministic plan of order 1, DDIM's eq. 12, the next one is
    alpha' x0 + sigma' eps."""
    trace, _ = recorded(20)
    for step, after in zip(trace.steps, trace.steps[1:], strict=False):
        np.testing.assert_allclose(step.alpha * step.x0 + step.sigma * step.eps, step.x_t, atol=1e-5)
        np.testing.assert_allclose(after.alpha * step.x0 + after.sigma * step.eps, step.next_x_t, atol=1e-5)
        assert (step.next_x_t == after.x_t).all()


@pytest.mark.parametrize("options", [{}, {"guidance": 1.0}, {"grows": True}, {"steps": 200}, {"steps": 1}])
def test_a_trace_survives_its_bytes(options):
    trace, _ = recorded(**options)
    data = trace.to_bytes()
    assert_equal(Trace.from_bytes(data), trace)
    assert data == trace.to_bytes() and trace.bytes <= len(data) <= trace.bytes + 4096


def test_twenty_steps_at_64_px_are_about_3_megabytes():
    trace, _ = recorded(20)
    assert 2.9e6 < len(trace.to_bytes()) < 3.1e6


def test_without_guidance_there_is_no_difference():
    trace, _ = recorded(5, guidance=1.0)
    assert all(step.guidance_difference is None for step in trace.steps)
    assert trace.bytes < 5 * (2 * 64 * 64 * 3 * 4 + 100)


def test_a_run_that_changes_its_size_has_stages():
    trace, seen = recorded(9, grows=True)
    assert [len(stage.step) for stage in trace.stages] == [4, 5]
    assert [step.x_t.shape for step in trace.steps] == [(3, 64, 64)] * 4 + [(3, 128, 128)] * 5
    assert trace.steps[3].next_x_t is None and trace.steps[4].step == 4


PREVIEW = np.linspace(-0.3, 0.4, 15, dtype=np.float32).reshape(5, 3)
LATENT = TraceModel(
    id="sd",
    space="latent",
    preview=PREVIEW,
    scheduler_config={"prediction_type": "v_prediction", "beta_start": 0.00085},
)


def recorded_latents(side: int = 64, steps: int = 3, channels: int = 4) -> Trace | None:
    """Return the trace of a guided run in a latent space."""
    random = np.random.default_rng(0)
    row = SimpleNamespace(step=0, num_steps=steps, record=None, seed=8, stage_info=None)
    recorder = TraceRecorder(row, ByteBudget(), LATENT)
    for step in range(steps):
        x_t, x0, difference = random.standard_normal((3, channels, side, side), np.float32)
        numbers = {"timestep": 900.0 - step, "alpha": 0.6, "sigma": 0.8, "guidance_scale": 7.5}
        row.record = SimpleNamespace(x_t=x_t, pred_original_sample=x0, guidance_difference=difference, **numbers)
        row.step = step + 1
        recorder.record()
    return recorder.trace()


def test_latents_survive_their_bytes():
    trace = recorded_latents(side=8)
    again = Trace.from_bytes(trace.to_bytes())
    assert_equal(again, trace)
    assert again.model.space == "latent" and again.model.channels == 4 and again.stages[0].x_t.shape == (3, 4, 8, 8)


def test_a_guided_step_of_512_px_takes_196_kilobytes():
    trace = recorded_latents(side=64)
    assert trace.bytes // 3 == pytest.approx(4 * 64 * 64 * 4 * 3, abs=100)


def test_a_guided_run_of_1024_px_in_30_steps_is_kept_whole():
    assert len(recorded_latents(side=128, steps=30).steps) == 30


def test_a_trace_has_the_channels_of_its_model():
    with pytest.raises(ValueError, match="has 16 channels; it must have 4"):
        recorded_latents(side=8, channels=16)


@pytest.mark.parametrize(
    "fields",
    [
        {"space": "hsv"},
        {"space": "latent"},
        {"preview": PREVIEW},
        {"space": "latent", "preview": PREVIEW[:, :2]},
        {"space": "latent", "preview": np.full_like(PREVIEW, np.inf)},
        {"space": "latent", "preview": PREVIEW.astype(np.float64)},
    ],
)
def test_a_model_without_a_meaning_is_refused(fields):
    with pytest.raises(ValueError, match="of a trace|preview matrix"):
        TraceModel(**fields)


class StagedRow(FakeRow):
    """A row with what the bundled pipeline's rows have besides."""

    class Stage:
        def __init__(self, task, condition):
            self.task, self.condition, self.noise_level = task, condition, 0.05 * task
            self.component = "upscaler" if task else "unet"

    first, second = Stage(0, np.zeros((7, 64, 64), np.float32)), Stage(2, np.ones((7, 128, 128), np.float32))

    @property
    def stage_info(self):
        return self.first if self.step < self.grows_at else self.second


def test_a_stage_stores_its_condition():
    (row,) = FakeBackend(grows=True).prepare(resolve(TextToImage("a cat", steps=6)))
    row.__class__ = StagedRow
    recorder = TraceRecorder(row, ByteBudget())
    while not row.finished:
        row.take_step()
        recorder.record()
    trace = Trace.from_bytes(recorder.trace().to_bytes())
    assert [(stage.task, stage.noise_level, stage.component) for stage in trace.stages] == [
        (0, 0.0, "unet"),
        (2, 0.1, "upscaler"),
    ]
    assert trace.stages[0].condition is None and (trace.stages[1].condition == 1).all()


@pytest.mark.parametrize("steps", [MAX_KEPT_STEPS, MAX_KEPT_STEPS + 1, 100, 129, 1000])
@pytest.mark.parametrize("grows", [False, True])
def test_long_runs_are_thinned_evenly(steps, grows):
    trace, _ = recorded(steps, size=8, grows=grows)
    kept = [step.step for step in trace.steps]
    assert len(kept) <= MAX_KEPT_STEPS and len(kept) >= min(steps, MAX_KEPT_STEPS // 2)
    ends = {0, steps - 1} | ({steps // 2 - 1, steps // 2} if grows else set())
    assert ends <= set(kept)
    stride = max(np.diff(kept))
    assert all(step % stride == 0 for step in set(kept) - ends)
    assert trace.num_steps == steps and [len(s.step) > 0 for s in trace.stages] == [True] * (1 + grows)
    last_of_stage = {steps // 2 - 1} if grows else set()
    consecutive = {n for n in kept if n + 1 in kept} - last_of_stage
    assert {step.step for step in trace.steps if step.next_x_t is not None} == consecutive


@pytest.mark.parametrize(("size", "steps"), [(64, 1000), (128, 60), (256, 30), (512, 5)])
def test_a_picture_has_at_most_so_many_bytes(size, steps):
    trace, _ = recorded(steps, size=size, guidance=1.0)
    assert trace.bytes <= MAX_TRACE_BYTES and {0, steps - 1} <= {step.step for step in trace.steps}


def test_a_run_that_is_too_large_leaves_no_trace():
    budget = ByteBudget()
    assert recorded(2, size=1024, budget=budget)[0] is None
    assert budget.left == MAX_TOTAL_BYTES


def test_all_recorders_share_a_budget():
    sampler, budget = FakeBackend(), ByteBudget(5_000_000)
    rows = sampler.prepare(resolve(TextToImage("a cat", steps=12, count=9)))
    recorders = [TraceRecorder(row, budget) for row in rows]
    left = []
    while not rows[0].finished:
        sampler.denoise_step(rows)
        for recorder in recorders:
            recorder.record()
        left.append(budget.left)
    traces = [recorder.trace() for recorder in recorders]
    assert [trace is not None for trace in traces] == [True] * 2 + [False] * 7  # those that came first
    assert len(set(left)) == 1 and 0 <= left[0] <= 5_000_000 - sum(trace.bytes - 1000 for trace in traces[:2])
    for recorder in recorders:
        recorder.close()
        recorder.close()
    assert budget.left == 5_000_000


def test_a_recorder_holds_no_more_than_it_took_from_the_budget(monkeypatch):
    """At every moment the bytes that a recorder holds are within what it took from the budget."""
    monkeypatch.setattr(recorder_module, "MAX_TRACE_BYTES", 3_000_000)
    for options in ({"steps": 100}, {"steps": 7, "grows": True}, {"steps": 150, "grows": True, "size": 32}):
        sampler = FakeBackend(sample_size=options.get("size", 64), grows=options.get("grows", False))
        (row,) = sampler.prepare(resolve(TextToImage("a cat", steps=options["steps"])))
        budget = ByteBudget()
        recorder = TraceRecorder(row, budget)
        while not row.finished:
            row.take_step()
            recorder.record()
            arrays = [a for k in recorder._kept for a in (k.x_t, k.x0, k.guidance_difference)]
            assert sum(array.nbytes for array in arrays) <= MAX_TOTAL_BYTES - budget.left <= 3_000_000
        assert recorder.trace() is not None


def test_a_view_does_not_keep_its_whole_batch():
    for batch in (torch.ones(100, 3, 4, 4), np.ones((100, 3, 4, 4), np.float32)):
        record = SimpleNamespace(
            x_t=batch[3],
            pred_original_sample=batch[4],
            guidance_difference=batch[5],
            timestep=999.0,
            alpha=0.6,
            sigma=0.8,
            guidance_scale=3.0,
        )
        row = SimpleNamespace(step=1, num_steps=1, record=record, seed=None, stage_info=None)
        recorder = TraceRecorder(row, ByteBudget())
        recorder.record()
        (kept,) = recorder._kept
        for array in (kept.x_t, kept.x0, kept.guidance_difference):
            if isinstance(array, np.ndarray):
                assert array.base is None
            else:
                assert array.untyped_storage().nbytes() == array.nbytes
        (step,) = recorder.trace().steps
        assert (step.x_t == 1).all() and step.eps[0, 0, 0] == pytest.approx(0.5)


def test_other_bytes_are_refused():
    trace, _ = recorded(3)
    data = trace.to_bytes()
    rgb = {"id": "", "space": "rgb", "channels": 3, "preview": None, "scheduler_config": None}
    about = json.dumps({"format": FORMAT, "num_steps": 1, "seed": None, "model": rgb, "stages": [{}]})
    other = json.dumps({"format": "another", "num_steps": 1, "seed": None, "stages": []})
    arrays = {f"0.{name}": array for name, array in trace.stages[0].arrays().items()}
    first = {"format": FORMAT_1, "num_steps": 3, "seed": 4, "stages": [{"task": None, "noise_level": 0.0}]}
    full = first | {"format": FORMAT, "model": rgb}
    wrong = [
        b"",
        b"\x89PNG\r\n",
        data[:-1],
        data[: len(data) // 2],
        data + b"x",
        b"\xff" * 100,
        save({"x": np.zeros(3)}),
        save({"x": np.zeros(3)}, {"trace": "["}),
        save({"x": np.zeros(3)}, {"trace": "[]"}),
        save({"x": np.zeros(3)}, {"trace": other}),
        save({"x": np.zeros(3)}, {"trace": about}),
        save({k: v for k, v in arrays.items() if k != "0.x0"}, {"trace": json.dumps(full)}),
        save(arrays | {"0.more": np.zeros(3)}, {"trace": json.dumps(full)}),
        save(arrays | {"0.sigma": np.zeros(3)}, {"trace": json.dumps(full)}),
        save(arrays | {"0.alpha": np.zeros(4)}, {"trace": json.dumps(full)}),
        save(arrays | {"0.x_t": np.zeros((3, 3, 64, 64))}, {"trace": json.dumps(full)}),
        save(arrays | {"0.step": np.array([2, 1, 0])}, {"trace": json.dumps(full)}),
        save(arrays, {"trace": json.dumps(full | {"num_steps": "many"})}),
        save(arrays, {"trace": json.dumps(first | {"format": FORMAT})}),
        save(arrays, {"trace": json.dumps(full | {"model": rgb | {"space": "latent"}})}),
        save(arrays, {"trace": json.dumps(full | {"model": rgb | {"space": "latent", "preview": PREVIEW.tolist()}})}),
        save(arrays, {"trace": json.dumps(full | {"model": rgb | {"space": "latent", "preview": [[1, 2], [3]]}})}),
        save(arrays, {"trace": json.dumps(full | {"model": rgb | {"scheduler_config": 3}})}),
    ]
    for about in (full, first):  # the earlier format still opens
        assert_equal(Trace.from_bytes(save(arrays, {"trace": json.dumps(about)})), trace)
    for bad in wrong:
        with pytest.raises(ValueError):
            Trace.from_bytes(bad)
