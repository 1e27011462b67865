"""With the bundled weights: a picture depends on its request alone. tests/soak/mixed.py asks it of many more."""

import random
from pathlib import Path

import pytest

from studio.models.families.studio import load_backend
from tests.fakes import resolve
from tests.soak.mixed import PIPELINES, WITHIN, CountingBackend, difference, plain, random_request, through_engine

MODEL = Path(__file__).resolve().parents[2] / "assets" / "model"


@pytest.fixture(scope="module")
def backend():
    return load_backend(MODEL, "cpu")


def test_a_picture_is_the_same_alone_in_company_and_by_the_pipeline(backend):
    draw = random.Random(36)
    requests = [random_request(draw, most_steps=4) for _ in range(8)]
    assert {type(request) for request in requests} == set(PIPELINES)
    assert len({request.sampler for request in requests}) >= 6
    assert any(resolve(request).passes == 3 for request in requests)  # the style emphasized
    alone = through_engine(backend, requests, together=False, draw=draw)
    counted = CountingBackend(backend)
    mixed = through_engine(counted, requests, together=True, draw=draw)
    assert counted.mixed  # rows of different tasks have shared a call
    for request, pictures, others in zip(requests, alone, mixed, strict=True):
        assert difference(pictures, others) <= WITHIN, request
        assert difference(pictures, plain(backend, request)) <= WITHIN, request
