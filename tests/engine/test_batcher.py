import itertools
from dataclasses import dataclass

import pytest
from PIL import Image

from studio.engine.requests import Denoise, Request, SuperResolve, TextToImage
from studio.engine.scheduling.batcher import (
    EXPLORE_EVERY,
    GROW_EVERY,
    LONGEST_WAIT_EVERY,
    MAX_KNOWN_SIZES,
    MAX_STRETCH,
    Batcher,
    CallTimes,
)
from studio.engine.scheduling.estimates import RequestTimes
from tests.fakes import resolve


@dataclass(eq=False)
class Row:
    num_steps: int
    call_key: tuple[int, int] = (32, 32)
    call_rows: int = 2
    step: int = 0

    @property
    def progress(self) -> float:
        return self.step

    @property
    def finished(self) -> bool:
        return self.step >= self.num_steps


def call(batcher: Batcher, seconds=lambda rows: 0.004 + 0.003 * rows) -> list[Row]:
    """One call, of the length that `seconds` gives for its network rows."""
    slots = batcher.pick()
    assert len({slot.key for slot in slots}) == 1
    rows = sum(slot.rows for slot in slots)
    taken = seconds(rows)
    batcher.call_times(slots[0].key).add(rows, taken)
    for slot in slots:
        slot.row.step += 1
        batcher.mark_served(slot, taken * slot.rows / rows)
    return [slot.row for slot in slots]


def calls_until_finished(batcher: Batcher, row: Row) -> int:
    return next(n for n in itertools.count() if row.finished or not call(batcher))


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_a_newcomer_needs_about_its_own_number_of_calls(steps):
    batcher = Batcher()
    for run in range(16):
        batcher.add(Row(200), run)
    for _ in range(100):
        call(batcher)
    newcomer = Row(steps)
    batcher.add(newcomer, "new")
    assert calls_until_finished(batcher, newcomer) <= steps + -(-steps // (LONGEST_WAIT_EVERY - 1))


def test_parties_share_the_time_evenly_however_many_rows_they_have():
    batcher = Batcher()
    seconds = {"flood": 0.0, "other": 0.0}
    for run in range(16):
        batcher.add(Row(10_000, call_key=(64, 64)), run, party="flood")
    batcher.add(Row(10_000), "one", party="other")
    for _ in range(1200):
        slots = batcher.pick()
        for slot in slots:
            slot.row.step += 1
            seconds[slot.party] += 0.01 / len(slots)
            batcher.mark_served(slot, 0.01 / len(slots))
    flood, other = seconds.values()
    jain = (flood + other) ** 2 / (2 * (flood**2 + other**2))
    assert jain >= 0.95, seconds


def test_rows_that_came_together_go_side_by_side():
    batcher = Batcher()
    rows = [Row(50) for _ in range(7)]
    for run, row in enumerate(rows):
        batcher.add(row, run)
    while batcher.slots:
        call(batcher)
        steps = [row.step for row in rows if not row.finished]
        assert not steps or max(steps) - min(steps) <= 2


def test_no_row_waits_forever_behind_newcomers_whatever_its_key():
    batcher = Batcher()
    old = [Row(40), Row(40, call_key=(64, 64))]
    for run, row in enumerate(old):
        batcher.add(row, run)
    for _ in range(10):
        call(batcher)
    number = itertools.count()
    for _ in range(40 * 2 * LONGEST_WAIT_EVERY * 8):
        while len(batcher.slots) < 8:  # there is always someone who was never served
            batcher.add(Row(1, call_key=(32, 32)), f"new {next(number)}")
        call(batcher)
        if all(row.finished for row in old):
            return
    pytest.fail(f"they are at {[row.step for row in old]} of 40")


def test_a_large_row_goes_alone_and_is_not_passed_over():
    batcher = Batcher()
    large = Row(10, call_rows=100)
    for run, row in enumerate((Row(100), Row(100), large)):
        batcher.add(row, run)
    assert calls_until_finished(batcher, large) <= 40


def test_removed_slots_are_not_picked():
    batcher = Batcher()
    for run in (1, 2):
        batcher.add(Row(5), run)
        batcher.add(Row(5), run)
    batcher.remove(1)
    assert {slot.owner for slot in batcher.pick()} == {2} and len(batcher.slots) == 2


def test_a_job_alone_takes_all_its_pictures_at_once():
    batcher = Batcher()
    for _ in range(9):
        batcher.add(Row(5), "me")
    assert len(call(batcher)) == 9


def test_large_pictures_of_one_job_go_one_by_one():
    """So that Stop does not wait for all of them."""
    batcher = Batcher()
    rows = [Row(2, (64, 64), call_rows=64) for _ in range(9)]
    for row in rows:
        batcher.add(row, "me")
    assert [len(call(batcher)) for _ in range(18)] == [1] * 18
    assert all(row.finished for row in rows)


def largest(times: CallTimes, alone: int, seconds, calls: int = 200) -> int:
    """What the calls come to when as many rows as allowed always take part; without what is only explored."""
    for _ in range(calls):
        rows = times.max_rows(alone)
        times.add(rows, seconds(rows))
        times.add(alone, seconds(alone))
    while times._calls % EXPLORE_EVERY == 0:
        times.add(alone, seconds(alone))
    return times.max_rows(alone)


@pytest.mark.parametrize(("a", "b"), [(0.001, 0.004), (0.01, 0.001), (0.02, 0.0001), (0.0, 0.005)])
@pytest.mark.parametrize("alone", [1, 2])
def test_a_call_takes_at_most_max_stretch_times_as_long_as_one_alone(a, b, alone):
    most = largest(CallTimes(), alone, lambda n: a + b * n)
    allowed = MAX_STRETCH * (a + b * alone)
    assert a + b * most <= allowed * 1.001 and a + b * (most + 1) > allowed * 0.999


def test_free_rows_raise_the_limit_step_by_step():
    times, tried = CallTimes(), []
    for _ in range(60):
        tried.append(times.max_rows(2))
        times.add(tried[-1], 0.01)
    assert tried[0] == 2 and tried[-1] > 500
    assert all(after <= 2 * max(before, 2) for before, after in itertools.pairwise(tried))


def test_one_outlier_changes_little():
    times = CallTimes()
    before = largest(times, 2, lambda n: 0.004 + 0.003 * n)
    times.add(before, 10.0)
    assert times.max_rows(2) >= before - 2
    assert largest(times, 2, lambda n: 0.004 + 0.003 * n) >= before - 1


def test_memory_halves_the_calls_and_they_grow_back_slowly():
    times = CallTimes()
    most = largest(times, 2, lambda n: 0.01 + 0.0001 * n)
    times.halve(most)
    assert times.max_rows(2) == most // 2
    times.halve(1)
    assert times.max_rows(2) == 1
    limits = []
    for _ in range(60 * GROW_EVERY):
        if times._calls % EXPLORE_EVERY:
            limits.append(times.max_rows(2))
        times.add(2, 0.0102)
    assert limits == sorted(limits) and limits[-1] >= most / 2
    assert all(after <= before + max(before / 4, 1) + 1 for before, after in itertools.pairwise(limits))


def test_remembered_times_are_bounded():
    times = CallTimes()
    for rows in range(1, 10 * MAX_KNOWN_SIZES):
        times.add(rows, 0.001 * rows)
        times.add(rows, 0.001 * rows)
    assert len(times._seconds) <= MAX_KNOWN_SIZES


def test_times_are_measured_by_task_and_size():
    times, small, large = RequestTimes(), Image.new("RGB", (32, 32)), Image.new("RGB", (128, 64))

    def expected(request: Request) -> float | None:
        return times.expected(resolve(request))

    def per_row(request: Request) -> float:
        return expected(request) / resolve(request).rows

    assert expected(TextToImage("a")) is None
    times.add(resolve(TextToImage("a", steps=10)), 1.0)
    assert expected(TextToImage("b", steps=10)) == pytest.approx(1.0)
    assert expected(TextToImage("b", steps=10, count=3)) == pytest.approx(3.0)
    assert 1.0 < expected(TextToImage("b", steps=20)) < 2.0  # finishing takes as long, however many steps come before
    assert expected(TextToImage("b", guidance=1)) < 1.0
    times.add(resolve(SuperResolve(small, steps=2)), 1.0)
    assert expected(SuperResolve(small, steps=4)) == pytest.approx(2.0)
    assert per_row(SuperResolve(large, steps=2)) == pytest.approx(per_row(SuperResolve(small, steps=2)))
    times.add(resolve(TextToImage("a", steps=10, resolution=512)), 18.0)
    assert expected(TextToImage("b", steps=10)) == pytest.approx(1.0)  # each size by its own measurements
    assert expected(TextToImage("b", steps=10, resolution=512)) == pytest.approx(18.0)
    near = TextToImage("b", steps=10, resolution=256)
    assert per_row(near) == pytest.approx(per_row(TextToImage("b", steps=10, resolution=512)))
    times.add(resolve(Denoise(small)), 0.1)  # the mean takes one call, whatever the steps of a run
    assert expected(Denoise(small, steps=50)) == pytest.approx(0.1)
    assert expected(Denoise(small, method="run", steps=50)) == pytest.approx(5.0)


def test_similar_requests_have_the_same_task_and_about_the_same_size():
    times, small, large = RequestTimes(), Image.new("RGB", (32, 32)), Image.new("RGB", (1000, 1000))
    times.add(resolve(SuperResolve(small)), 1.0)
    assert times.similar(resolve(SuperResolve(small))) == pytest.approx(1.0)
    assert times.similar(resolve(SuperResolve(large))) is None and times.similar(resolve(Denoise(small))) is None
