import threading

import pytest

from studio.engine.engine import Engine, EngineError, Progress, Result
from studio.engine.requests import TextToImage
from tests.fakes import FakePipeline


def started(pipeline: FakePipeline) -> Engine:
    return Engine(lambda: pipeline).start()


def finished(engine: Engine, request: TextToImage) -> Result:
    *_, result = engine.run(request)
    assert isinstance(result, Result)
    return result


def test_a_run_ends_in_its_pictures():
    pipeline = FakePipeline()
    result = finished(started(pipeline), TextToImage("a red apple", count=3, steps=5, seed=7))
    assert [image.size for image in result.images] == [(64, 64)] * 3
    assert result.seeds == (7, 8, 9)
    assert pipeline.calls == [3] * 5  # all pictures share each network call
    assert result.seconds > 0 and not result.stopped and result.notes == ()


def test_a_picture_depends_on_its_seed_alone():
    engine = started(FakePipeline())
    many = finished(engine, TextToImage("a cat", count=3, seed=5)).images
    alone = finished(engine, TextToImage("a cat", seed=6)).images
    assert many[1].tobytes() == alone[0].tobytes() != many[0].tobytes()


def test_progress_counts_up_and_shows_previews():
    events = list(started(FakePipeline(delay=0.03)).run(TextToImage("a cat", steps=20)))
    running = [event for event in events if isinstance(event, Progress) and event.phase == "running"]
    steps = [event.step for event in running]
    assert steps == sorted(set(steps)) and running[-1].steps == 20
    assert running[-1].previews[0].size == (64, 64)


def test_stop_ends_a_run_within_a_step():
    pipeline = FakePipeline(delay=0.02)
    engine = started(pipeline)
    run_id = engine.submit(TextToImage("a cat", steps=1000))
    stream = engine.stream(run_id)
    while next(stream).step < 3:
        pass
    engine.stop(run_id)
    calls = len(pipeline.calls)
    *_, result = stream
    assert result.stopped and result.images == () and len(result.previews) == 1
    assert len(pipeline.calls) <= calls + 2
    assert finished(engine, TextToImage("a dog", steps=2)).images  # and the engine goes on


def test_one_run_at_a_time_in_the_order_they_came():
    engine = started(FakePipeline(delay=0.02))
    first, second, third = (engine.submit(TextToImage(name, steps=20)) for name in ("a", "b", "c"))
    follow = engine.stream(third)
    assert next(event for event in follow if event.phase == "waiting").ahead in (1, 2)
    engine.stop(second)  # leaves the line without being run
    *_, left = engine.stream(second)
    assert left.stopped and left.step == 0
    *_, done = follow
    assert len(done.images) == 1
    *_, done = engine.stream(first)
    assert len(done.images) == 1


def test_closing_the_stream_stops_the_run():
    pipeline = FakePipeline(delay=0.01)
    engine = started(pipeline)
    stream = engine.run(TextToImage("a cat", steps=1000))
    while next(stream).step < 1:
        pass
    stream.close()
    assert finished(engine, TextToImage("a dog", steps=2)).images
    assert len(pipeline.calls) < 100


def test_runs_wait_for_the_model():
    gate = threading.Event()
    engine = Engine(lambda: gate.wait() and FakePipeline()).start()
    stream = engine.run(TextToImage("a cat"))
    assert next(stream).phase == "loading" and engine.status.phase == "loading"
    gate.set()
    *_, result = stream
    assert result.images and engine.status.phase == "idle"


def test_a_model_that_cannot_be_loaded_is_said_to_those_who_wait_and_who_come():
    gate = threading.Event()

    def load():
        gate.wait()
        raise RuntimeError("The model folder x does not exist.")

    engine = Engine(load).start()
    waiting = engine.run(TextToImage("a cat"))
    next(waiting)
    gate.set()
    with pytest.raises(EngineError, match="does not exist"):
        list(waiting)
    assert engine.status.problem == "The model folder x does not exist."
    with pytest.raises(EngineError, match="does not exist"):
        engine.submit(TextToImage("a cat"))


def test_a_run_that_fails_does_not_end_the_engine():
    pipeline = FakePipeline()
    engine = started(pipeline)
    pipeline.limit = "x"  # breaks `truncated`, at the end of the run
    with pytest.raises(EngineError, match="The run failed: TypeError"):
        list(engine.run(TextToImage("a cat", steps=1)))
    pipeline.limit = 300
    assert finished(engine, TextToImage("a cat", steps=1)).images


def test_notes_say_what_was_not_read():
    engine = started(FakePipeline(limit=20))
    (note,) = finished(engine, TextToImage("", steps=1)).notes
    assert "empty" in note
    (note,) = finished(engine, TextToImage("a cat on a very long prompt", steps=1)).notes
    assert note == "The prompt is longer than the model reads. It did not read: “prompt”."
    (note,) = finished(engine, TextToImage("x" * 10_000, steps=1)).notes
    assert "9,860 characters more" in note and len(note) < 300
