"""Requests joined into batches: bounded, fair to each other, clean at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from api.batching import Batcher, Bounds, Weight
from api.problems import Problem


class Doubler:
    """An encoder of numbers that can be held at its work; notes every batch. Refuses 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()

    def __call__(self, values: Sequence[int]) -> list[int]:
        self.batches.append(list(values))
        self.busy.set()
        self.free.wait()
        if 13 in values:
            raise ValueError("thirteen")
        return [2 * value for value in values]

    def hold(self) -> None:
        self.free.clear()
        self.busy.clear()


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def batcher(doubler: Doubler) -> Iterator[Batcher[int, int]]:
    """At most 4 in a batch, 8 at a time; a value weighs as many bytes as it says."""
    made = Batcher(doubler, lambda value: Weight(1, value), Bounds(batch=4, pieces=8, bytes=1000), "test")
    yield made
    doubler.free.set()
    made.close()


def held(batcher: Batcher[int, int], doubler: Doubler) -> None:
    """Keep the encoder busy with one value, so that what follows waits."""
    doubler.hold()
    batcher.submit([0])
    assert doubler.busy.wait(20)


def test_what_waits_is_joined_and_each_gets_its_own(batcher: Batcher[int, int], doubler: Doubler) -> None:
    held(batcher, doubler)
    answers = [future for n in (1, 2, 3) for future in batcher.submit([n, 10 * n])]
    doubler.free.set()
    assert [answer.result(20) for answer in answers] == [2, 20, 4, 40, 6, 60]
    assert doubler.batches == [[0], [1, 10, 2, 20], [3, 30]]


def test_many_threads_get_what_they_asked_for(batcher: Batcher[int, int], doubler: Doubler) -> None:
    def ask(n: int) -> int:
        while True:
            try:
                return batcher.submit([n])[0].result(20)
            except Problem as problem:
                assert problem.status_code == 503

    with ThreadPoolExecutor(16) as threads:
        asked = [n for n in range(200) if n != 13]
        assert list(threads.map(ask, asked)) == [2 * n for n in asked]
    assert max(map(len, doubler.batches)) <= 4


def test_past_the_bound_a_request_is_told_to_come_back(batcher: Batcher[int, int], doubler: Doubler) -> None:
    held(batcher, doubler)
    waiting = batcher.submit([1] * 7)
    with pytest.raises(Problem) as refused:
        batcher.submit([1])
    assert refused.value.status_code == 503 and refused.value.headers["Retry-After"].isdigit()
    doubler.free.set()
    assert [answer.result(20) for answer in waiting] == [2] * 7
    assert batcher.submit([5])[0].result(20) == 10  # there is room again


def test_bytes_are_bounded_too(batcher: Batcher[int, int], doubler: Doubler) -> None:
    held(batcher, doubler)
    batcher.submit([900])
    with pytest.raises(Problem) as refused:
        batcher.submit([101])
    assert refused.value.status_code == 503


def test_what_never_fits_is_not_told_to_come_back(batcher: Batcher[int, int]) -> None:
    for values in ([1] * 9, [1001]):
        with pytest.raises(Problem) as refused:
            batcher.submit(values)
        assert refused.value.status_code == 413


def test_a_heavy_value_is_encoded_alone(doubler: Doubler) -> None:
    made = Batcher(doubler, lambda value: Weight(value, 0), Bounds(batch=4, pieces=20), "test")
    held(made, doubler)
    answers = made.submit([9, 2, 2, 1])
    doubler.free.set()
    assert [answer.result(20) for answer in answers] == [18, 4, 4, 2]
    assert doubler.batches == [[0], [9], [2, 2], [1]]
    made.close()


def test_one_bad_value_fails_itself_alone(batcher: Batcher[int, int], doubler: Doubler) -> None:
    held(batcher, doubler)
    good, bad, other = (batcher.submit([n])[0] for n in (1, 13, 2))
    doubler.free.set()
    assert good.result(20) == 2 and other.result(20) == 4
    with pytest.raises(ValueError, match="thirteen"):
        bad.result(20)


def test_an_encoder_that_loses_answers_fails_those_who_wait_and_goes_on() -> None:
    made: Batcher[int, int] = Batcher(lambda values: values[:1], lambda value: Weight(1, 1), Bounds(batch=4), "test")
    empty: Batcher[int, int] = Batcher(lambda values: [], lambda value: Weight(1, 1), Bounds(batch=4), "test")
    try:
        assert [answer.result(20) for answer in made.submit([1, 2, 3])] == [1, 2, 3]  # one by one, nothing is lost
        for _ in range(2):
            with pytest.raises(ValueError, match="1 answers"):
                empty.submit([1])[0].result(20)
    finally:
        made.close()
        empty.close()


def test_what_nobody_waits_for_is_not_encoded(batcher: Batcher[int, int], doubler: Doubler) -> None:
    held(batcher, doubler)
    gone, kept = batcher.submit([7])[0], batcher.submit([8])[0]
    assert gone.cancel()
    doubler.free.set()
    assert kept.result(20) == 16
    with pytest.raises(CancelledError):
        gone.result(20)
    assert 7 not in [value for batch in doubler.batches for value in batch]
    assert [answer.result(20) for answer in batcher.submit([1] * 8)] == [2] * 8  # and its room is free


def test_closing_tells_who_waits_and_finishes_what_runs(doubler: Doubler) -> None:
    made = Batcher(doubler, lambda value: Weight(1, 1), Bounds(batch=1), "test")
    doubler.hold()
    running = made.submit([3])[0]
    assert doubler.busy.wait(20)
    waiting = made.submit([4])[0]
    closing = threading.Thread(target=made.close)
    closing.start()
    with pytest.raises(Problem) as told:
        waiting.result(20)
    assert told.value.status_code == 503
    doubler.free.set()
    closing.join(20)
    assert running.result(20) == 6 and not closing.is_alive()
    with pytest.raises(Problem) as late:
        made.submit([5])
    assert late.value.status_code == 503


def test_nothing_asked_is_nothing_to_wait_for(batcher: Batcher[int, int]) -> None:
    assert batcher.submit([]) == []
