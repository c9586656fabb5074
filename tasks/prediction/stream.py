"""Threads that work ahead of and behind the main one, with few items between them."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
WAIT_SECONDS = 0.1  # between looks at whether the other side has ended
END = object()


class Failure:
    """What a thread raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextmanager
def ahead(items: Iterator[Item], most: int) -> Iterator[Iterator[Item]]:
    """Yield an iterator over the items, which a thread makes ahead: at most `most` that are not taken yet.

    What it raises is raised in place of the next item. Where the block ends early, the thread ends, too.
    """
    ready: Queue[Any] = Queue(most)
    stopped = Event()

    def work() -> None:
        try:
            for item in items:
                if not put(ready, item, stopped):
                    return
            put(ready, END, stopped)
        except BaseException as error:  # noqa: BLE001 - raised where the items are taken
            put(ready, Failure(error), stopped)

    def take() -> Iterator[Item]:
        while (item := ready.get()) is not END:
            if isinstance(item, Failure):
                raise item.error
            yield item

    thread = Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        thread.join()


def side_by_side(
    work: Callable[[Item], Made], items: Iterator[Item], most: int
) -> Generator[tuple[Item, Made], None, None]:
    """Yield each item with what `work` makes of it, in the order of the items; at most `most` are worked on at once.

    What the work raises is raised in place of the item. Whoever leaves early closes the generator.
    """
    with ThreadPoolExecutor(most) as pool:
        running: deque[tuple[Item, Future[Made]]] = deque()
        for item in items:
            running.append((item, pool.submit(work, item)))
            if len(running) == most:
                first, made = running.popleft()
                yield first, made.result()
        for first, made in running:
            yield first, made.result()


@contextmanager
def behind(work: Callable[[Item], None], most: int) -> Iterator[Callable[[Item], None]]:
    """Yield a function that hands an item to a thread, which does `work` with one after the other.

    At most `most` wait. What the work raises is raised at the next item, or when the block ends. Where the block
    raises, the thread ends after the item at hand.
    """
    waiting: Queue[Any] = Queue(most)
    stopped, failures = Event(), list[BaseException]()

    def run() -> None:
        while not stopped.is_set():
            try:
                item = waiting.get(timeout=WAIT_SECONDS)
            except Empty:
                continue
            if item is END:
                return
            try:
                work(item)
            except BaseException as error:  # noqa: BLE001 - raised where the items come from
                failures.append(error)
                stopped.set()

    def hand(item: Item) -> None:
        put(waiting, item, stopped)
        if failures:
            raise failures[0]

    thread = Thread(target=run, name="behind", daemon=True)
    thread.start()
    try:
        yield hand
        put(waiting, END, stopped)
        thread.join()
    finally:
        stopped.set()
        thread.join()
    if failures:
        raise failures[0]


def put(queue: Queue[Any], item: object, stopped: Event) -> bool:
    """Put an item as soon as there is room; return False if the other side has stopped before."""
    while not stopped.is_set():
        try:
            queue.put(item, timeout=WAIT_SECONDS)
        except Full:
            continue
        return True
    return False
