import itertools
from dataclasses import dataclass

import pytest
from PIL import Image

from studio.engine.batcher import (
    EXPLORE_EVERY,
    GROW_EVERY,
    LONGEST_WAIT_EVERY,
    MOST_KNOWN,
    STRETCH,
    Batcher,
    CallTimes,
    RequestCosts,
)
from studio.engine.requests import Denoise, Request, SuperResolve, TextToImage
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


def call(schedule: Batcher, seconds=lambda rows: 0.004 + 0.003 * rows) -> list[Row]:
    """One call, of the length that `seconds` gives for its network rows."""
    seats = schedule.pick()
    assert len({seat.key for seat in seats}) == 1
    rows = sum(seat.need for seat in seats)
    schedule.measured(seats[0].key, rows, seconds(rows))
    for seat in seats:
        seat.row.step += 1
        schedule.served(seat)
    return [seat.row for seat in seats]


def calls_until_finished(schedule: Batcher, row: Row) -> int:
    return next(n for n in itertools.count() if row.finished or not call(schedule))


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_a_newcomer_needs_about_its_own_number_of_calls(steps):
    schedule = Batcher()
    for run in range(16):
        schedule.take_in(Row(200), run)
    for _ in range(100):
        call(schedule)
    newcomer = Row(steps)
    schedule.take_in(newcomer, "new")
    assert calls_until_finished(schedule, newcomer) <= steps + -(-steps // (LONGEST_WAIT_EVERY - 1))


def test_rows_that_came_together_go_side_by_side():
    schedule = Batcher()
    rows = [Row(50) for _ in range(7)]
    for run, row in enumerate(rows):
        schedule.take_in(row, run)
    while schedule.seats:
        call(schedule)
        steps = [row.step for row in rows if not row.finished]
        assert not steps or max(steps) - min(steps) <= 2


def test_nobody_waits_for_ever_behind_newcomers_whatever_the_shape():
    schedule = Batcher()
    old = [Row(40), Row(40, call_key=(64, 64))]
    for run, row in enumerate(old):
        schedule.take_in(row, run)
    for _ in range(10):
        call(schedule)
    number = itertools.count()
    for _ in range(40 * 2 * LONGEST_WAIT_EVERY * 8):
        while len(schedule.seats) < 8:  # there is always someone who was never served
            schedule.take_in(Row(1, call_key=(32, 32)), f"new {next(number)}")
        call(schedule)
        if all(row.finished for row in old):
            return
    pytest.fail(f"they are at {[row.step for row in old]} of 40")


def test_a_large_row_goes_alone_and_is_not_passed_over():
    schedule = Batcher()
    large = Row(10, call_rows=100)
    for run, row in enumerate((Row(100), Row(100), large)):
        schedule.take_in(row, run)
    assert calls_until_finished(schedule, large) <= 40


def test_who_leaves_is_not_picked():
    schedule = Batcher()
    for run in (1, 2):
        schedule.take_in(Row(5), run)
        schedule.take_in(Row(5), run)
    schedule.leave(1)
    assert {seat.run for seat in schedule.pick()} == {2} and len(schedule.seats) == 2


def test_a_job_alone_takes_all_its_pictures_at_once():
    schedule = Batcher()
    for _ in range(9):
        schedule.take_in(Row(5), "me")
    assert len(call(schedule)) == 9


def test_large_pictures_of_one_job_go_one_by_one():
    """So that Stop does not wait for all of them."""
    schedule = Batcher()
    rows = [Row(2, (64, 64), call_rows=64) for _ in range(9)]
    for row in rows:
        schedule.take_in(row, "me")
    assert [len(call(schedule)) for _ in range(18)] == [1] * 18
    assert all(row.finished for row in rows)


def largest(pace: CallTimes, alone: int, seconds, calls: int = 200) -> int:
    """What the calls come to when as many rows as allowed always take part; without what is only explored."""
    for _ in range(calls):
        rows = pace.most(alone)
        pace.measured(rows, seconds(rows))
        pace.measured(alone, seconds(alone))
    while pace._calls % EXPLORE_EVERY == 0:
        pace.measured(alone, seconds(alone))
    return pace.most(alone)


@pytest.mark.parametrize(("a", "b"), [(0.001, 0.004), (0.01, 0.001), (0.02, 0.0001), (0.0, 0.005)])
@pytest.mark.parametrize("alone", [1, 2])
def test_calls_take_up_to_about_so_many_times_as_long_as_one_alone(a, b, alone):
    most = largest(CallTimes(), alone, lambda n: a + b * n)
    allowed = STRETCH * (a + b * alone)
    assert a + b * most <= allowed * 1.001 and a + b * (most + 1) > allowed * 0.999


def test_where_more_rows_cost_nothing_there_is_no_limit_but_each_step_up_is_small():
    pace, tried = CallTimes(), []
    for _ in range(60):
        tried.append(pace.most(2))
        pace.measured(tried[-1], 0.01)
    assert tried[0] == 2 and tried[-1] > 500
    assert all(after <= 2 * max(before, 2) for before, after in itertools.pairwise(tried))


def test_one_hiccup_changes_little():
    pace = CallTimes()
    before = largest(pace, 2, lambda n: 0.004 + 0.003 * n)
    pace.measured(before, 10.0)
    assert pace.most(2) >= before - 2
    assert largest(pace, 2, lambda n: 0.004 + 0.003 * n) >= before - 1


def test_memory_halves_the_calls_and_they_grow_back_slowly():
    pace = CallTimes()
    most = largest(pace, 2, lambda n: 0.01 + 0.0001 * n)
    pace.out_of_memory(most)
    assert pace.most(2) == most // 2
    pace.out_of_memory(1)
    assert pace.most(2) == 1
    limits = []
    for _ in range(60 * GROW_EVERY):
        if pace._calls % EXPLORE_EVERY:
            limits.append(pace.most(2))
        pace.measured(2, 0.0102)
    assert limits == sorted(limits) and limits[-1] >= most / 2
    assert all(after <= before + max(before / 4, 1) + 1 for before, after in itertools.pairwise(limits))


def test_what_is_remembered_is_bounded():
    pace = CallTimes()
    for rows in range(1, 10 * MOST_KNOWN):
        pace.measured(rows, 0.001 * rows)
        pace.measured(rows, 0.001 * rows)
    assert len(pace._seconds) <= MOST_KNOWN


def test_costs_are_learned_by_task_and_size():
    costs, small, large = RequestCosts(), Image.new("RGB", (32, 32)), Image.new("RGB", (128, 64))

    def expected(request: Request) -> float | None:
        return costs.expected(resolve(request))

    def per_row(request: Request) -> float:
        return expected(request) / resolve(request).rows

    assert expected(TextToImage("a")) is None
    costs.learn(resolve(TextToImage("a", steps=10)), 1.0)
    assert expected(TextToImage("b", steps=10)) == pytest.approx(1.0)
    assert expected(TextToImage("b", steps=10, count=3)) == pytest.approx(3.0)
    assert 1.0 < expected(TextToImage("b", steps=20)) < 2.0  # finishing takes as long, however many steps come before
    assert expected(TextToImage("b", guidance=1)) < 1.0
    costs.learn(resolve(SuperResolve(small, steps=2)), 1.0)
    assert expected(SuperResolve(small, steps=4)) == pytest.approx(2.0)
    assert per_row(SuperResolve(large, steps=2)) == pytest.approx(per_row(SuperResolve(small, steps=2)))
    costs.learn(resolve(TextToImage("a", steps=10, resolution=512)), 18.0)
    assert expected(TextToImage("b", steps=10)) == pytest.approx(1.0)  # each size by its own measurements
    assert expected(TextToImage("b", steps=10, resolution=512)) == pytest.approx(18.0)
    near = TextToImage("b", steps=10, resolution=256)
    assert per_row(near) == pytest.approx(per_row(TextToImage("b", steps=10, resolution=512)))
    costs.learn(resolve(Denoise(small)), 0.1)  # the mean takes one call, whatever the steps of a run
    assert expected(Denoise(small, steps=50)) == pytest.approx(0.1)
    assert expected(Denoise(small, method="run", steps=50)) == pytest.approx(5.0)


def test_a_limit_goes_by_requests_of_the_same_task_and_about_the_same_size():
    costs, small, large = RequestCosts(), Image.new("RGB", (32, 32)), Image.new("RGB", (1000, 1000))
    costs.learn(resolve(SuperResolve(small)), 1.0)
    assert costs.measured(resolve(SuperResolve(small))) == pytest.approx(1.0)
    assert costs.measured(resolve(SuperResolve(large))) is None and costs.measured(resolve(Denoise(small))) is None
