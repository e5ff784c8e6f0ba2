"""Calls in processes of their own, watched from here: whatever such a process does to itself, this one learns of it.

A call may raise, leave, crash, be killed or say nothing any more. Its output is passed on line by line, and what it has
changed in its process (folder, environment, random state) ends with it, as do the processes that it has started.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from spectral_tl_bench import pause, pulse
from spectral_tl_bench.endings import SIGNALS, at_once, check_stopped, how_ended, stoppable, stopped_by
from spectral_tl_bench.storage import make_room_for_sockets

TAIL = 200
"""Lines of a process's output that are kept for the log of a failure."""
GRACE = 2.0
"""Seconds that a process has to clear up when it is stopped."""
LONGEST = 1 << 16  # of a line, in bytes, before it is passed on unfinished

Line = Callable[[str], None]
PAUSE = signal.SIGUSR1
"""Asks a process to stop where it can go on later."""
Pipes = Sequence[tuple[Connection, Connection]]
"""For results, standard output and standard error: the end that is read, and the one that is written."""


@dataclass(frozen=True)
class Call:
    """A function and its arguments, as bytes.

    Args:
        content: What pickle made of them.
        environment: Variables that the process gets beside those of this one.
    """

    content: bytes
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, function: Callable[..., Any], *arguments: Any) -> Call:
        """A call that can be sent to another process.

        Raises:
            Exception: Whatever pickle or a foreign class raises, if it cannot be.
        """
        return cls(pickle.dumps((function, arguments)))


@dataclass(frozen=True)
class Ended:
    """How a call ended.

    Attributes:
        reason: Why it has not returned; empty if it has.
        hung: Whether it was ended from here, because it gave no sign of life.
        tail: The end of its output.
    """

    value: Any = None
    reason: str = ""
    hung: bool = False
    tail: str = ""


def run_apart(
    calls: Iterable[tuple[int, Call]], at_a_time: int, out: Line, err: Line, hang_after: float | None = None
) -> Generator[tuple[int, Ended]]:
    """Make calls, each in a process of its own.

    Args:
        calls: The calls, each with a number.
        at_a_time: How many processes there are at once.
        out: Gets each line of their standard output.
        err: The same for their standard error.
        hang_after: Seconds after which a process that gives no sign of life is ended; None for never.

    Yields:
        The number of a call and how it ended, as soon as it does. When this generator is closed, or interrupted, the
        processes that are left are ended.
    """
    waiting = iter(calls)
    running: dict[int, _Child] = {}

    def kill_all() -> None:
        for child in running.values():
            child.kill()

    with at_once(kill_all):
        try:
            while True:
                check_stopped()
                if pause.asked():
                    for child in running.values():
                        child.ask_to_pause()
                while len(running) < at_a_time and (following := next(waiting, None)) is not None:
                    running[following[0]] = _Child(following[1], out, err)
                if not running:
                    return
                wait([source for child in running.values() for source in child.sources()], 1.0)
                for number, child in list(running.items()):
                    child.read()
                    if hang_after and child.is_silent(hang_after):
                        child.end_hung(hang_after)
                    if child.is_over():
                        yield number, child.ended()
                        del running[number]
        except BaseException:  # an interruption, or nobody listens any more
            _stop(list(running.values()))
            _end_server()
            raise


def _stop(children: Sequence[_Child]) -> None:
    """Let processes clear up for a moment, then end them."""
    for child in children:
        child.ask_to_end()
    last = time.monotonic() + GRACE
    while any(not child.is_over() for child in children) and time.monotonic() < last:
        wait([source for child in children for source in child.sources()], 0.1)
        for child in children:
            child.drain()
    for child in children:
        child.kill()
        child.close()


class _Child:
    """A process that makes a call, seen from here."""

    def __init__(self, call: Call, out: Line, err: Line) -> None:
        context = multiprocessing.get_context("forkserver")
        start_server()
        pipes = [context.Pipe(duplex=False) for _ in range(3)]
        self._results = pipes[0][0]
        self._streams = {ours: _Stream(ours, say) for (ours, _), say in zip(pipes[1:], (out, err), strict=True)}
        self._tail: deque[str] = deque(maxlen=TAIL)
        for stream in self._streams.values():
            stream.tail = self._tail
        self._value: tuple[Any] | None = None
        self._reason, self._hung, self._asked = "", False, False
        self.process = context.Process(
            name="stbench cell",
            target=_begin,
            args=(call.content, pipes, {**os.environ, **call.environment}, os.getcwd()),  # noqa: PTH109
        )
        with without_main():
            self.process.start()
        for _, theirs in pipes:
            theirs.close()
        self._last = time.monotonic()
        self._returned: float | None = None

    def sources(self) -> list[Any]:
        """What may have news."""
        return [self.process.sentinel, *self._open()]

    def _open(self) -> list[Connection]:
        return [source for source in (self._results, *self._streams) if not source.closed]

    def read(self, pass_on: bool = True) -> None:
        """Take in what has come: lines, signs of life, the value."""
        for source, stream in self._streams.items():
            if not source.closed and stream.read(pass_on):
                self._last = time.monotonic()
        try:
            while not self._results.closed and self._results.poll():
                news = self._results.recv()
                self._last = time.monotonic()
                if news is not None:
                    self._value, self._returned = news, self._last
        except (EOFError, OSError, pickle.UnpicklingError):
            self._results.close()

    def drain(self) -> None:
        """Take in what has come, and pass nothing on."""
        self.read(pass_on=False)

    def is_silent(self, seconds: float) -> bool:
        """Whether there was no sign of life for so long."""
        return self._value is None and not self._hung and time.monotonic() - self._last > seconds

    def end_hung(self, seconds: float) -> None:
        """End it because it is silent, with a word about where it was."""
        self._hung, self._reason = True, f"no line and no step for {seconds / 60:.3g} minutes: it was stopped"
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid(), signal.SIGABRT)  # faulthandler says where each thread is
        self.process.join(1.0)
        self.kill()

    def is_over(self) -> bool:
        """Whether it has ended; one that has returned may linger for a moment only, on threads that were left."""
        if self._returned is not None and time.monotonic() - self._returned > GRACE:
            self.kill()
        return bool(wait([self.process.sentinel], 0))

    def ended(self) -> Ended:
        """How it ended, once it is over; the processes that it has started and left behind end with it."""
        self.process.join()
        code = self.process.exitcode
        self.kill()
        self.read()
        for stream in self._streams.values():
            stream.flush()
        self.close()
        tail = "\n".join(self._tail)
        if self._value is not None:
            return Ended(self._value[0], tail=tail)
        return Ended(reason=self._reason or how_ended(code), hung=self._hung, tail=tail)

    def ask_to_pause(self) -> None:
        """Let it stop where it can go on later; it is asked once."""
        if not self._asked:
            self._asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid(), PAUSE)

    def ask_to_end(self) -> None:
        """Let it clear up and end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid(), signal.SIGTERM)

    def kill(self) -> None:
        """End it, and all processes that it has started."""
        over = bool(wait([self.process.sentinel], 0))
        for send in (os.killpg,) if over else (os.killpg, os.kill):  # it may not have got to making a group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(self._pid(), signal.SIGKILL)

    def close(self) -> None:
        """Let go of it."""
        self.process.join(1.0)
        for source in self._open():
            source.close()

    def _pid(self) -> int:
        return int(self.process.pid or 0)


class _Stream:
    """One output of a process, cut into lines."""

    def __init__(self, source: Connection, say: Line) -> None:
        self._source, self._say, self._rest = source, say, b""
        self.tail: deque[str] = deque()
        os.set_blocking(source.fileno(), False)

    def read(self, pass_on: bool) -> bool:
        """Take in what has come, and say whether there was anything."""
        came = False
        while True:
            try:
                piece = os.read(self._source.fileno(), LONGEST)
            except BlockingIOError:
                return came
            if not piece:
                self._source.close()
                return came
            came = True
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) > LONGEST:
                lines, self._rest = [*lines, self._rest], b""
            for line in lines if pass_on else ():
                self._line(line)

    def flush(self) -> None:
        """Pass on a last line that was not ended."""
        if self._rest:
            self._line(self._rest)
        self._rest = b""

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        self.tail.append(text)
        self._say(text)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes that are started inside do not import the program that is running.

    Nothing that they call is of it, and a script that calls ``run`` at its top level would run again in each of them.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def start_server(modules: Iterable[str] = ()) -> None:
    """Start the server that processes are forked off, which imports what is slow to import; one that runs goes on.

    Args:
        modules: Modules of the suite that will be needed.
    """
    make_room_for_sockets()
    multiprocessing.set_forkserver_preload(["spectral_tl_bench.runner.ready", *modules])
    resource_tracker.ensure_running()  # which unblocks signals, and is needed below
    # The server inherits this, as do its processes until they take signals themselves: what ends them is this process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, PAUSE))
    try:
        with without_main():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_server() -> None:
    """End the server and the tracker of resources at once.

    By themselves they would end after this process: the server not before it has imported all, which takes seconds.
    """
    helpers: tuple[Any, ...] = (forkserver._forkserver, resource_tracker._resource_tracker)
    for helper in helpers:
        pid = getattr(helper, "_forkserver_pid", None) or getattr(helper, "_pid", None)
        if pid is not None:
            with contextlib.suppress(OSError, AttributeError):
                os.kill(pid, signal.SIGKILL)
                helper._stop()


def _begin(content: bytes, pipes: Pipes, environment: dict[str, str], folder: str) -> None:
    """In the process: make the call, and send its value."""
    os.setpgid(0, 0)  # a group of its own: Ctrl-C is for the parent, which decides; and what is left can be ended
    # Both ends stay open here: when the parent is gone, nothing that is written may look like a failure of the call.
    (_ours, results), *outputs = pipes
    for number, (_, theirs) in enumerate(outputs, 1):
        os.dup2(theirs.fileno(), number)
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
    faulthandler.enable(2)
    os.environ.clear()
    os.environ.update(environment)  # the server has those of its own start, like the folder
    os.chdir(folder)
    threading.Thread(target=_end_with_parent, daemon=True, name="stbench end with parent").start()
    pulse.listen(lambda: results.send(None))
    with stoppable():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(PAUSE, lambda *_: pause.ask())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, PAUSE))
        try:
            function, arguments = pickle.loads(content)  # noqa: S301
            value = function(*arguments)
        except KeyboardInterrupt:
            if (signalled := stopped_by()) is not None:
                os._exit(128 + signalled)
            raise
        results.send((value,))


def _end_with_parent() -> None:
    """End this process and all that it has started when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)
