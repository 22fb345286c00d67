import threading
import time
from collections.abc import Iterator

import pytest

from lumbar_tf.serving.remote import predict_in_order


@pytest.mark.parametrize("max_in_flight", [1, 2, 8, 50])
def test_answers_come_in_order_and_each_item_is_asked_about_once(max_in_flight: int) -> None:
    asked: list[int] = []

    def ask(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        asked.append(item)
        return -item

    assert list(predict_in_order(range(30), ask, max_in_flight=max_in_flight)) == [(i, -i) for i in range(30)]
    assert sorted(asked) == list(range(30))


def test_so_many_are_under_way_and_no_more_are_drawn() -> None:
    drawn, running, most = [0], [0], [0]
    lock = threading.Lock()

    def items() -> Iterator[int]:
        for item in range(20):
            drawn[0] += 1
            yield item

    def ask(item: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return item

    for done, _ in predict_in_order(items(), ask, max_in_flight=4):
        assert drawn[0] - done <= 5
    assert most[0] == 4


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_an_error_is_raised_at_its_turn_and_ends_it(max_in_flight: int) -> None:
    asked: list[int] = []

    def ask(item: int) -> int:
        asked.append(item)
        if item == 2:
            raise ValueError("two")
        return item

    done = []
    with pytest.raises(ValueError, match="two"):
        for item, _ in predict_in_order(range(100), ask, max_in_flight=max_in_flight):
            done.append(item)
    assert done == [0, 1]
    assert len(asked) < 10


def test_a_caller_that_stops_leaves_nothing_running() -> None:
    before = threading.active_count()
    answers = predict_in_order(range(100), lambda item: item, max_in_flight=4)
    next(answers)
    answers.close()
    assert threading.active_count() == before


def test_no_place_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(predict_in_order([1], lambda item: item, max_in_flight=0))
