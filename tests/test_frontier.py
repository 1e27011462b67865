"""The benchmark from which presets are chosen: Pareto frontiers, measures of quality, and options of a setting."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from studio.training.evaluation.classifier import Labels, Predictions
from tests.benchmarks.frontier import (
    Measurement,
    Quality,
    Setting,
    format_page,
    frontier_measures,
    has_passes,
    is_on_frontier,
    measure_quality,
    prepare_options,
)


def test_dominated_points_are_not_on_the_frontier():
    points = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.7), (3.0, 0.9), (4.0, 0.6), (2.0, 0.2)]
    assert is_on_frontier(points) == [True, True, False, True, False, False]
    assert is_on_frontier([(1.0, 0.5), (1.0, 0.5)]) == [True, True]  # neither is better than the other
    assert is_on_frontier([]) == []


def test_each_measure_has_its_own_frontier():
    def one(seconds: float, concept: float, style: float, frechet: float) -> Measurement:
        return Measurement(Setting("studio", 4, 3.0), seconds, Quality(concept, style, frechet))

    measurements = [one(0.1, 0.9, 0.8, 2.0), one(0.2, 0.9, 0.9, 3.0), one(0.3, 0.8, 0.7, 1.0)]
    assert frontier_measures(measurements) == ["concept, style, Fréchet", "style", "Fréchet"]
    text = format_page("# head\n", Quality(1.0, 0.99, 0.5), 12, 32, measurements[::-1])
    lines = [line for line in text.splitlines() if line.startswith("| studio")]
    assert len(lines) == 6 and lines[0] == (
        "| studio | 4 | 3 | two | 0.100 | 90.0% | 80.0% | 2.000 | concept, style, Fréchet |"
    )


def test_quality_of_known_predictions():
    labels = Labels(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 3]), torch.zeros(4))
    features = torch.randn(4, 3)
    predictions = Predictions(torch.eye(5)[[0, 1, 4, 4]], torch.eye(4), torch.zeros(4, 1), features)
    quality = measure_quality(predictions, labels, features)
    assert (quality.concept, quality.style) == (0.5, 1.0) and quality.frechet == pytest.approx(0, abs=1e-4)


def test_passes_are_those_of_pipeline_and_network():
    def pipe(one_pass: bool, prepare):
        return SimpleNamespace(
            unet=SimpleNamespace(config=SimpleNamespace(guidance_rank=32 * one_pass)), prepare=prepare
        )

    def plain(prompts, num_inference_steps=12, guidance_scale=3.0, sampler=None, size=None): ...
    def both(prompts, num_inference_steps=12, guidance_scale=3.0, sampler=None, size=None, one_pass=False): ...

    assert [has_passes(pipe(one_pass, p), "one") for one_pass in (True, False) for p in (both, plain)] == [True] + [
        False
    ] * 3
    assert has_passes(pipe(False, plain), "two") and not has_passes(pipe(False, plain), "three")
    setting = Setting("ddim", 5, 2.0, "one")
    expected = {"num_inference_steps": 5, "guidance_scale": 2.0, "sampler": "ddim", "size": 32}
    assert prepare_options(pipe(False, plain), setting, 32) == expected
    assert prepare_options(pipe(True, both), setting, 32) == expected | {"one_pass": True}

    def all_three(prompts, one_pass=False, style_emphasis=0.25): ...

    assert has_passes(pipe(False, all_three), "three")
    for passes, style in (("two", 0.0), ("three", 0.25)):
        options = prepare_options(pipe(True, all_three), replace(setting, passes=passes), 32)
        assert options == expected | {"one_pass": False, "style_emphasis": style}
