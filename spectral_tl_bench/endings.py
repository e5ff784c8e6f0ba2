"""What ends work from outside: a user's signal, an output that nobody reads, foreign code that leaves the program."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from spectral_tl_bench.pause import Paused

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DIES = (signal.SIGTERM, signal.SIG_DFL)
_TWICE = 0.3  # seconds within which a second signal is the same wish: a launcher may pass on what we got ourselves

_HINTS = {
    "SIGKILL": ", as it happens when memory runs out",
    "SIGBUS": ", as it happens when a file that is read is cut short (packed chips), a disk fails or /dev/shm is full",
}
_stopped_by: int | None = None
_last_words: list[Callable[[], None]] = []


class OutputClosed(BaseException):
    """Nobody reads our output any more, as after ``| head``: no error of anything that runs."""


class LeftError(Exception):
    """Foreign code raised what is no error but would have ended the program."""

    def __init__(self, cause: BaseException) -> None:
        self.kind = type(cause).__name__
        code = cause.code if isinstance(cause, SystemExit) else None
        super().__init__(f"it called sys.exit({code!r})" if isinstance(cause, SystemExit) else f"it raised {self.kind}")


def stopped_by() -> int | None:
    """The signal by which the user has stopped this program; None as long as he has not."""
    return _stopped_by


def check_stopped() -> None:
    """End work that has outlived its interruption, because something swallowed the exception.

    Raises:
        KeyboardInterrupt: If the user has stopped this program.
    """
    if _stopped_by is not None:
        raise KeyboardInterrupt


def how_ended(code: int | None) -> str:
    """Words for the exit code of a process, negative where a signal has killed it."""
    if code is None or code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-code} ({name}){_HINTS.get(name, '')}"


def end_with_parent() -> None:
    """Have this process end when the one that has started it is gone, however that ended."""
    import multiprocessing  # not for every command

    def wait() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True, name="stbench end with parent").start()


@contextlib.contextmanager
def at_once(action: Callable[[], None]) -> Iterator[None]:
    """Have ``action`` done if the program has to end within the block, at a second signal, without any clearing up."""
    _last_words.append(action)
    try:
        yield
    finally:
        _last_words.remove(action)


@contextlib.contextmanager
def stoppable(to_the_end: bool = False) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into a ``KeyboardInterrupt``, once; another one ends the process at once.

    A signal that is ignored, as for a job in the background of a script, stays so. Outside the main thread this does
    nothing.

    Args:
        to_the_end: The program ends with the block: once stopped, it says so by its exit code even where another signal
            comes while Python clears up.
    """
    global _stopped_by  # noqa: PLW0603
    owner, since, before = os.getpid(), 0.0, {}
    if to_the_end:
        atexit.register(_hear_no_more)  # called after whatever is registered later

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal since
        global _stopped_by
        if os.getpid() != owner:  # a reader process that was forked off
            os._exit(128 + number)
        if _stopped_by is None:
            _stopped_by, since = number, time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - since > _TWICE:
            for action in _last_words:
                with contextlib.suppress(Exception):
                    action()
            os._exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop)
    try:
        yield
    finally:
        if not to_the_end or _stopped_by is None:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
            _stopped_by = None


def _hear_no_more() -> None:
    """Ignore signals in a program that was stopped: at its very end Python gives them their deadly default again."""
    if _stopped_by is not None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run foreign code that may raise anything: what would end the program becomes a ``LeftError``.

    An interruption by the user stays one.
    """
    arrived: list[int] = []
    handlers = {signal.SIGINT: signal.getsignal(signal.SIGINT), signal.SIGTERM: signal.getsignal(signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        raise SystemExit(128 + number)  # which is what happens by default, after clearing up

    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    watched = [n for n, handler in handlers.items() if callable(handler) or (n, handler) == _DIES]
    for number in watched:
        signal.signal(number, note)
    try:
        yield
    except (Exception, OutputClosed, Paused):
        raise
    except BaseException as error:
        if signal.SIGTERM in arrived and _stopped_by is None:
            raise SystemExit(128 + signal.SIGTERM) from None
        if arrived or _stopped_by is not None:
            raise KeyboardInterrupt from None
        raise LeftError(error) from error
    finally:
        for number in watched:
            if signal.getsignal(number) is note:
                signal.signal(number, handlers[number])
