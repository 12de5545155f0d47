"""Asking a training to stop: from a panel, from the keyboard, from a scheduler."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """A request to end a training in good order: after the current epoch, or `now`, after the step."""

    def __init__(self) -> None:
        self.asked = self.now = False

    def ask(self, *, now: bool = False) -> None:
        """Ends the training; from any thread."""
        self.asked, self.now = True, self.now or now


@contextmanager
def handled(number: int, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Calls `handler` for a signal meanwhile, but only in the main thread, which gets all signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def held(number: int) -> Iterator[None]:
    """Holds a signal back, however often it comes, and lets it through at the end."""
    came: list[int] = []
    with handled(number, lambda number, frame: came.append(number)):
        yield
    if came:
        signal.raise_signal(number)


@contextmanager
def noted(number: int) -> Iterator[threading.Event]:
    """Holds a signal back and sets the event; a second Ctrl-C is not held back.

    A step cut short would leave weights and optimiser at different steps.
    """
    event = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    with handled(number, note):
        yield event
