"""A data folder of an earlier version opens with all that is in it, and its requests give the same pictures.

data.zip was written by the version of November 2026 (commit ced7807), before settings were renamed. It holds 40 jobs of
all tasks and samplers that are done, with 45 pictures, one of them a favourite; one cancelled, one failed and two
queued jobs; a draft; and two of the traces.
"""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.engine.engine import Engine
from studio.engine.requests import Request, request_from
from studio.engine.scheduling.limits import LineLimits
from studio.library.drafts import Drafts
from studio.library.metadata import read_png_settings
from studio.library.store import Library
from studio.services.import_settings import import_settings
from tests.fakes import MODELS, FakeBackend, MemoryJournal, resolve, single_model

OWNER, OTHER = "browser:golden", "browser:other"
WRITTEN = 1_796_054_400.0  # seconds since 1970; a week later the failed and cancelled jobs would be forgotten
OLD_NAMES = {"ground", "varied", "finish", "way"}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    with zipfile.ZipFile(Path(__file__).with_name("data.zip")) as file:
        file.extractall(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: WRITTEN)
        library = Library(folder)
        yield library
        library.close()


def load_requests(library: Library) -> dict[str, Request]:
    """Return the requests of the jobs that are done, by the jobs' ids."""
    requests = {}
    for job in library.find_ended_jobs(OWNER, limit=100):
        inputs = {}
        for field, path in library.find_inputs(OWNER, job.pictures[0].id).items():
            with Image.open(path) as image:
                inputs[field] = image.copy()
        requests[job.id] = request_from(job.settings, inputs)
    return requests


def test_all_jobs_are_there(library):
    jobs = library.find_ended_jobs(OWNER, limit=100)
    assert len(jobs) == 40 and {job.state for job in jobs} == {"done"}
    assert all(len(job.pictures) == job.count and job.step == job.steps for job in jobs)
    failed, cancelled = library.find_ended_jobs(OTHER)
    assert (failed.state, failed.error) == ("failed", "The job failed: as an example.")
    assert (cancelled.state, cancelled.caption, cancelled.count) == ("cancelled", "a cancelled cat", 9)
    words, hole = library.journal.load_unfinished()
    assert (words.id, words.owner, words.crashes) == ("unfinished-words", OTHER, 0)
    assert (words.request.prompt, words.request.background, words.request.randomize_style) == (
        "an unfinished owl",
        "red",
        True,
    )
    assert (hole.id, hole.request.image.size, hole.request.mask.getbbox()) == (
        "unfinished-hole",
        (64, 64),
        (21, 21, 40, 40),
    )


def test_all_pictures_are_there(library):
    pictures = library.find_pictures(OWNER, limit=100)
    assert len(pictures) == 45 and library.find_pictures(OTHER) == []
    for picture in pictures:
        with Image.open(picture.path) as image:
            assert image.size == (picture.width, picture.height)
            image.load()
    (favourite,) = library.find_pictures(OWNER, favourites=True)
    assert favourite.settings["prompt"] == "a red apple" and favourite.seed == 1
    assert len(library.find_pictures(OWNER, search="owl noto", limit=100)) == 7
    assert library.count_days(OWNER)[0][1] == 45 and len(library.count_days(OWNER)) == 1


def test_traces_are_there(library):
    traced = [picture for picture in library.find_pictures(OWNER, limit=100) if picture.has_trace]
    assert sorted(picture.settings["task"] for picture in traced) == ["denoise", "text-to-image"]
    for picture in traced:
        trace = library.load_trace(OWNER, picture.id)
        assert trace.seed == picture.seed and 1 <= len(trace.steps) == trace.num_steps
        last = trace.steps[-1]
        assert np.isfinite(last.x_t).all() and last.x_t.shape == (3, picture.height, picture.width)
        with Image.open(picture.path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=float).transpose(2, 0, 1)
        assert np.abs((last.x0.clip(-1, 1) + 1) * 127.5 - pixels).max() < 1  # the last prediction is the picture


def test_draft_is_there(library):
    drafts = Drafts(library.folder, library.key)
    assert drafts.get(OTHER, "inpaint", "picture").size == (64, 64)
    assert drafts.get_note(OTHER, "inpaint", "picture") == "photograph"


def test_settings_have_their_current_names(library):
    for job in library.find_ended_jobs(OWNER, limit=100):
        assert not OLD_NAMES & set(job.settings)
        for picture in job.pictures:
            settings = read_png_settings(picture.path)
            assert settings == picture.settings and not OLD_NAMES & set(settings)
            restored = import_settings(settings, MODELS).values
            for name in ("prompt", "negative_prompt", "seed", "steps", "guidance", "sampler"):
                assert restored[name] == settings[name]
            if job.task == "text-to-image":
                assert restored["style"] == settings["style"] and restored["background"] == settings["background"]
                assert restored["resolution"] == (settings["resolution"] or 0)


def test_every_request_can_be_read(library):
    for id, request in load_requests(library).items():
        job = library.get_job(OWNER, id)
        assert (request.task, request.count, resolve(request).caption) == (job.task, job.count, job.caption)
        for index, picture in enumerate(job.pictures):
            single = library.load_request(OWNER, picture.id)
            assert (single.seed, single.count) == (picture.seed, 1)
            assert resolve(single).captions == (picture.settings["caption"],)
            assert resolve(request).seeds[index] == picture.seed and single.pictures() == request.pictures()


def test_unfinished_jobs_run(tmp_path):
    with zipfile.ZipFile(Path(__file__).with_name("data.zip")) as file:
        file.extractall(tmp_path)
    library = Library(tmp_path)
    engine = Engine(single_model(FakeBackend), library.journal, resolve=resolve).start()
    try:
        for id in ("unfinished-words", "unfinished-hole"):
            *_, view = engine.follow(id, OTHER) if engine.wait_until_ready(60) else ()
            assert view.state == "done" and len(view.pictures) == 1
        assert library.journal.load_unfinished() == []
    finally:
        engine.shutdown()
        library.close()


def test_every_request_gives_the_same_pictures(library):
    from studio.models.families.studio import load_backend
    from studio.models.loader import reserve_torch_threads

    models = single_model(lambda: load_backend(Path(__file__).parents[2] / "assets" / "model"))
    models.claim_thread = reserve_torch_threads
    requests, journal = load_requests(library), MemoryJournal()
    engine = Engine(
        models, journal, resolve=resolve, limits=LineLimits(owner_jobs=len(requests), owner_seconds=1e9)
    ).start()
    try:
        submitted = {engine.submit(request, OWNER): id for id, request in requests.items()}
        for new_id, id in submitted.items():
            *_, view = engine.follow(new_id, OWNER)
            assert view.state == "done", view.error
            for picture, stored in zip(view.pictures, library.get_job(OWNER, id).pictures, strict=True):
                with Image.open(stored.path) as image:
                    before = np.asarray(image, dtype=int)
                after = np.asarray(journal.images[picture.id], dtype=int)
                assert before.shape == after.shape
                assert np.abs(before - after).max() <= 1, f"{stored.settings} differs"
    finally:
        engine.shutdown()
