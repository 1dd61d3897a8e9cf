"""One more thread, so that reading goes on while what was read is worked on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Generator[T], depth: int) -> Generator[T]:
    """Yield the items of a generator that runs in a thread of its own, at most ``depth`` items
    ahead, in its order.

    What the generator raises is raised here. Closing what is returned closes the generator, in its
    thread.
    """
    ready: Queue[tuple[T] | BaseException | None] = Queue(depth)
    stopped = Event()

    def run() -> None:
        end = None
        try:
            for item in items:
                ready.put((item,))
                if stopped.is_set():
                    break
        except BaseException as error:
            end = error
        items.close()
        ready.put(end)

    thread = Thread(target=run, name="fedsense-prefetch", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stopped.set()
        while thread.is_alive():
            # A full queue would hold the thread for ever.
            with suppress(Empty):
                ready.get(timeout=0.01)
