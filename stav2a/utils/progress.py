"""Progress of long work: a bar on a terminal, in a log a line every half minute."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

LINE_S = 30.0  # time between two lines of a log


class ProgressBar(tqdm):
    """A bar of tqdm; the text beside it ends with the time that the whole run takes, where it is known."""

    def skip(self, count: int) -> None:
        """Count items that were finished before, but not for the speed."""
        self.initial += count
        self.update(count)

    def note(self, text: str) -> None:
        """Set the text beside the bar."""
        found = self.format_dict
        whole = _whole(self.total, self.n, found["rate"])
        self.set_postfix_str(", ".join(filter(None, (text, whole))), refresh=False)

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items; each counts when the next is asked for."""
        for item in items:
            yield item
            self.update()


class ProgressLines:
    """The same for a log: one line every `LINE_S` seconds, and none for shorter work.

    Args:
        total: Number of items, where it is known.
        desc: Name of the work.
        unit: Name of an item.
        initial: Number of items that were finished before.
    """

    def __init__(self, total: int | None, desc: str, unit: str, initial: int = 0) -> None:
        self.total, self.desc, self.unit = total, desc, unit
        self.n, self.initial, self.text = initial, initial, ""
        self.began = self.last = time.monotonic()

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        """Count items that are finished."""
        self.n += count
        now = time.monotonic()
        if now - self.last >= LINE_S:
            self.last = now
            print(self.line(now - self.began), file=sys.stderr, flush=True)

    def skip(self, count: int) -> None:
        """Count items that were finished before, but not for the speed."""
        self.n += count
        self.initial += count

    def note(self, text: str) -> None:
        """Set the text at the end of a line."""
        self.text = text

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items; each counts when the next is asked for."""
        for item in items:
            yield item
            self.update()

    def line(self, elapsed_s: float) -> str:
        """Line of the log: what is done, the rate, the time left, and of the whole run where it is known."""
        rate = (self.n - self.initial) / elapsed_s
        of = f"/{self.total}" if self.total else ""
        slow = 0 < rate < 1
        speed = f"{1 / rate:.2f} s/{self.unit}" if slow else f"{rate:.2f} {self.unit}s/s"
        parts = [f"{self.desc}: {self.n}{of} {self.unit}s", speed]
        if self.total and rate:
            parts.append(f"{tqdm.format_interval((self.total - self.n) / rate)} left")
        return ", ".join([*parts, *filter(None, (self.text, _whole(self.total, self.n, rate)))])


def progress(
    total: int | None, desc: str, unit: str, *, initial: int = 0, leave: bool = True, shown: bool = True
) -> ProgressBar | ProgressLines:
    """Progress of a work, which counts by `update`.

    Args:
        total: Number of items, where it is known.
        desc: Name of the work.
        unit: Name of an item.
        initial: Number of items that were finished before.
        leave: Keep the bar on the terminal when the work is done.
        shown: False for a process that says nothing.
    """
    if shown and not sys.stderr.isatty():
        return ProgressLines(total, desc, unit, initial)
    disable = not shown or _beside.get()
    return ProgressBar(
        total=total, desc=desc, unit=unit, initial=initial, leave=leave, disable=disable, smoothing=0.1
    )


_beside: ContextVar[bool] = ContextVar("beside", default=False)


@contextlib.contextmanager
def beside() -> Iterator[None]:
    """Leave the terminal, and the time of the whole run, to another process that shows its own work there."""
    token = _beside.set(True)
    try:
        yield
    finally:
        _beside.reset(token)


_later: ContextVar[float | None] = ContextVar("later", default=None)


@contextlib.contextmanager
def followed_by(cost: float) -> Iterator[None]:
    """Set the time that follows the work inside, as a multiple of its own, for the time of the whole run."""
    token = _later.set(cost)
    try:
        yield
    finally:
        _later.reset(token)


def _whole(total: int | None, done: int, rate: float | None) -> str:
    """Time left of this work and of all that follows."""
    later = _later.get()
    if later is None or not total or not rate or _beside.get():
        return ""
    return f"the whole run {tqdm.format_interval((total - done + later * total) / rate)}"
