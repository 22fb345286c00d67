"""Several questions at a time, answers in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def predict_in_order(
    items: Iterable[Item], ask: Callable[[Item], Answer], *, max_in_flight: int = 1
) -> Iterator[tuple[Item, Answer]]:
    """Asks about each item once, up to so many at a time, and yields items and answers in their order.

    Items are drawn only as places become free, so that memory holds `max_in_flight` of them, and one more
    that is being drawn. With one place the caller's own thread asks.

    Args:
        items: drawn in the caller's thread.
        ask: called in other threads; what it raises is raised here, at the item's turn, and ends it.
        max_in_flight: at least 1.
    """
    if max_in_flight < 1:
        raise ValueError(f"`max_in_flight` must be at least 1. Received: {max_in_flight}.")
    if max_in_flight == 1:
        for item in items:
            yield item, ask(item)
        return
    waiting: deque[tuple[Item, Future[Answer]]] = deque()
    pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="ask")
    try:
        for item in items:
            if len(waiting) == max_in_flight:
                first, future = waiting.popleft()
                yield first, future.result()
            waiting.append((item, pool.submit(ask, item)))
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        # Also where the caller stops early: what has not begun is not asked.
        pool.shutdown(wait=True, cancel_futures=True)
