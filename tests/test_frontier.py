"""The benchmark that presets are chosen from marks what is on the frontier, and nothing else."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from studio.training.evaluation.classifier import Labels, Verdict
from tests.benchmarks.frontier import Measured, Quality, Setting, can_do, frontier, marks, options, page, quality


def test_what_is_slower_and_no_better_is_not_on_the_frontier():
    points = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.7), (3.0, 0.9), (4.0, 0.6), (2.0, 0.2)]
    assert frontier(points) == [True, True, False, True, False, False]
    assert frontier([(1.0, 0.5), (1.0, 0.5)]) == [True, True]  # neither is better than the other
    assert frontier([]) == []


def test_each_measure_has_its_own_frontier():
    def one(seconds: float, concept: float, style: float, frechet: float) -> Measured:
        return Measured(Setting("studio", 4, 3.0), seconds, Quality(concept, style, frechet))

    measured = [one(0.1, 0.9, 0.8, 2.0), one(0.2, 0.9, 0.9, 3.0), one(0.3, 0.8, 0.7, 1.0)]
    assert marks(measured) == ["concept, style, Fréchet", "style", "Fréchet"]
    text = page("# head\n", Quality(1.0, 0.99, 0.5), 12, 32, measured[::-1])
    lines = [line for line in text.splitlines() if line.startswith("| studio")]
    assert len(lines) == 6 and lines[0] == (
        "| studio | 4 | 3 | two | 0.100 | 90.0% | 80.0% | 2.000 | concept, style, Fréchet |"
    )


def test_quality_of_a_known_verdict():
    labels = Labels(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 3]), torch.zeros(4))
    features = torch.randn(4, 3)
    found = quality(Verdict(torch.eye(5)[[0, 1, 4, 4]], torch.eye(4), torch.zeros(4, 1), features), labels, features)
    assert (found.concept, found.style) == (0.5, 1.0) and found.frechet == pytest.approx(0, abs=1e-4)


def test_passes_are_an_axis_where_they_are_known():
    def pipe(taught: bool, prepare):
        return SimpleNamespace(unet=SimpleNamespace(config=SimpleNamespace(guidance_rank=32 * taught)), prepare=prepare)

    def plain(prompts, num_inference_steps=12, guidance_scale=3.0, sampler=None, size=None): ...
    def both(prompts, num_inference_steps=12, guidance_scale=3.0, sampler=None, size=None, one_pass=False): ...

    assert [can_do(pipe(taught, p), "one") for taught in (True, False) for p in (both, plain)] == [True] + [False] * 3
    assert can_do(pipe(False, plain), "two") and not can_do(pipe(False, plain), "three")
    setting = Setting("ddim", 5, 2.0, "one")
    asked = {"num_inference_steps": 5, "guidance_scale": 2.0, "sampler": "ddim", "size": 32}
    assert options(pipe(False, plain), setting, 32) == asked
    assert options(pipe(True, both), setting, 32) == asked | {"one_pass": True}

    def all_three(prompts, one_pass=False, style_emphasis=0.25): ...

    assert can_do(pipe(False, all_three), "three")
    for passes, style in (("two", 0.0), ("three", 0.25)):
        given = options(pipe(True, all_three), replace(setting, passes=passes), 32)
        assert given == asked | {"one_pass": False, "style_emphasis": style}
