"""One cell on several devices: a process for each, of which the first one tests, writes and speaks.

The processes go through the same steps. Each trains on its part of every batch (``training.parts``) and predicts its
share of the chips (``evaluation.evaluate``); Lightning's DDP adds up gradients.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as processes

from spectral_tl_bench import pause
from spectral_tl_bench.data.shares import agreed
from spectral_tl_bench.endings import contained, end_with_parent
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.runner.apart import without_main
from spectral_tl_bench.runner.build import Workplace, build
from spectral_tl_bench.runner.checkpoints import cell_store
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.nodes import Board, connected
from spectral_tl_bench.runner.test import assist, leaked
from spectral_tl_bench.runner.train import train
from spectral_tl_bench.storage import scratch
from spectral_tl_bench.training.hardware import Hardware, computing_threads
from spectral_tl_bench.training.oom import StepMemoryError, is_out_of_memory

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one may have to wait for a stage that another run trains."""
OUT_OF_MEMORY = 77
"""Exit code of a process whose memory has run out."""


class DeviceError(RuntimeError):
    """Another process of the group has failed."""


def why_alone(cell: Cell) -> str:
    """Why a cell runs on one device, however many there are; empty if it does not."""
    if cell.method.kept_features() is not None:
        return "it runs on kept features"
    if not any(stage.steps and stage.fit is None for stage in cell.method.stages(cell.task())):
        return "it has no training by gradients"
    return ""


def check_parts(cell: Cell, hardware: Hardware) -> None:
    """Refuse a cell whose batches cannot be in parts.

    Raises:
        UserError: If an objective needs them whole, or they have fewer windows than there would be parts.
    """
    parts, size = hardware.processes * hardware.passes, cell.settings.budget.batch_size
    if parts == 1:
        return
    across = [name for name, objective in cell.objectives.items() if objective.looks_across()]
    if across:
        raise UserError(
            f"objective {', '.join(across)} needs all windows of a batch together, not in parts",
            fix="run it on one device, without --micro-batches",
        )
    if size < hardware.processes and not why_alone(cell):
        raise UserError(
            f"a batch of {size} windows is too small for {hardware.processes} devices", fix="use fewer devices"
        )


def divisible(cells: Sequence[Cell], hardware: Hardware) -> tuple[list[Cell], list[tuple[str, UserError]]]:
    """The cells whose batches can be in as many parts as are asked for, and the others with the reason."""
    able, refused = [], {}
    for cell in cells:
        try:
            check_parts(cell, hardware)
        except UserError as error:
            refused[f"{cell.method_name} on {cell.opened.benchmark.id}"] = error
        else:
            able.append(cell)
    return able, list(refused.items())


@contextlib.contextmanager
def together(cell: Cell, workplace: Workplace) -> Iterator[None]:
    """Inside, this process is the first of the group that trains a cell, if there are several devices for it.

    Raises:
        UserError: If the cell cannot be sent to other processes.
        DeviceError: If another process has failed.
        StepMemoryError: If the memory of another one has run out.
    """
    hardware = workplace.hardware
    if hardware.processes == 1:
        yield
        return
    if reason := why_alone(cell):
        workplace.say(f"{cell.title} | on one device: {reason}")
        yield
        return
    with tempfile.TemporaryDirectory(prefix="stbench-group-") as name, _Group(cell, workplace, Path(name)):
        yield


class _Group:
    """The processes beside the first one."""

    def __init__(self, cell: Cell, workplace: Workplace, folder: Path) -> None:
        self.cell, self.workplace, self.folder = cell, workplace, folder
        self.size = workplace.hardware.processes
        self.others: list[BaseProcess] = []
        self._over = threading.Event()
        self.board: Board | None = None
        self.number, self.trouble = 0, ""

    def __enter__(self) -> None:
        hardware, context = self.workplace.hardware, multiprocessing.get_context("spawn")
        try:
            with contained():
                content = pickle.dumps((self.cell, self.workplace.out, hardware, self.workplace.workers))
        except Exception as error:
            raise UserError(f"the cell cannot be sent to other processes: {error}", fix="leave out --devices") from None
        threads = torch.get_num_threads()
        try:
            if hardware.meeting is not None:
                self.board = Board(hardware.meeting)
                self.number = self.board.post(pickle.dumps((hardware.devices, content)))
            self.others = [
                context.Process(
                    target=other, args=(content, rank, self.folder, threads, self.number), name=f"stbench device {rank}"
                )
                for rank in range(1, hardware.devices)
            ]
            for process in self.others:
                with without_main():
                    process.start()
            threading.Thread(target=self._watch, daemon=True, name="stbench devices").start()
            _join(hardware, 0, self.folder, self.number)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if error is None:
                agreed(False)
                for other in self.others:
                    other.join(60)
            elif isinstance(error, Exception):
                time.sleep(0.5)  # what has made this one fail may be about to say why
        finally:
            self._over.set()
            if self.board is not None:
                with contextlib.suppress(RuntimeError):
                    self.trouble = self.trouble or (error is not None and self._elsewhere()) or ""
                    self.board.end(self.number)
            codes = [other.exitcode for other in self.others if other.pid is not None]
            for other in self.others:
                if other.pid is not None and other.is_alive():
                    other.kill()
                    other.join()
            with contextlib.suppress(Exception):  # it may be in pieces
                processes.destroy_process_group()
        if error is not None and isinstance(error, Exception) and not isinstance(error, UserError):
            self._explain(error, codes)

    def _explain(self, error: Exception, codes: list[int | None]) -> None:
        """Raise another process's failure, where this one's is that it has lost the other."""
        if is_out_of_memory(error):
            return
        if OUT_OF_MEMORY in codes or self.trouble.startswith("out of memory"):
            raise StepMemoryError("in another process of the group") from error
        for rank, code in enumerate(codes, 1):
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                raise DeviceError(f"process {rank} of {self.size} was killed by signal {-code} ({name})") from error
        # A failure of the method happens in all processes, and this one's own says it best.
        if not isinstance(error, RuntimeError):
            return
        for rank in range(1, len(codes) + 1):
            if text := told_in(self.folder, rank):
                raise DeviceError(f"process {rank} of {self.size}: {text}") from error
        if self.trouble:
            raise DeviceError(self.trouble) from error

    def _elsewhere(self) -> str:
        """What has gone wrong on other nodes."""
        return self.board.trouble(self.number, self.workplace.hardware.nodes) if self.board is not None else ""

    def _watch(self) -> None:
        """Break off what this process waits for when another one is gone: NCCL would wait for hours."""
        while not self._over.wait(1.0):
            with contextlib.suppress(RuntimeError):
                self.trouble = self.trouble or self._elsewhere()
            if (self.trouble or any(other.exitcode for other in self.others)) and not self._over.wait(5.0):
                with contextlib.suppress(Exception):
                    processes.distributed_c10d._abort_process_group()
                return


def told_in(folder: Path, rank: int) -> str:
    """What a process that has failed has left: the last line of its traceback, and all of it."""
    told = folder / f"{rank}.txt"
    text = told.read_text(encoding="utf-8") if told.is_file() else ""
    return f"{text.strip().splitlines()[-1]}\n{text}" if text.strip() else ""


def _join(hardware: Hardware, rank: int, folder: Path, number: int) -> None:
    """Become a member of a group: on this machine, or where nodes meet, for the cell of a number there."""
    meeting, backend = hardware.meeting, "gloo"
    if sys.platform == "linux" and (meeting is None or meeting.address in ("127.0.0.1", "localhost")):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody else is to connect, and names need not resolve
    if hardware.device.type == "cuda":
        torch.cuda.set_device(rank % hardware.devices)
        backend = "cpu:gloo,cuda:nccl"
    where: dict[str, Any] = {"init_method": (folder / "meeting").as_uri()}
    if meeting is not None:
        where = {"store": processes.PrefixStore(f"group {number}", connected(meeting))}
    processes.init_process_group(backend, rank=rank, world_size=hardware.processes, timeout=PATIENCE, **where)


def other(content: bytes, rank: int, folder: Path, threads: int, number: int = 0) -> None:
    """In another process: go through the cell beside the first one, in silence."""
    for told_to_first in (signal.SIGINT, signal.SIGUSR1):  # which decides, and ends this one
        signal.signal(told_to_first, signal.SIG_IGN)
    end_with_parent()
    code, told = 1, folder / f"{rank}.txt"
    with told.with_suffix(".out").open("wb") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    try:
        cell, out, hardware, workers = pickle.loads(content)  # noqa: S301
        with computing_threads(threads), contained():
            _join(hardware, rank, folder, number)
            accompany(cell, Workplace(out, hardware, workers, lambda _: None))
        code = 0
    except pause.Paused:
        code = 0
    except Exception as error:
        if is_out_of_memory(error):
            code = OUT_OF_MEMORY
        told.write_text(traceback.format_exc(), encoding="utf-8")
    os._exit(code)


def accompany(cell: Cell, workplace: Workplace) -> None:
    """Train and test a cell as a member of a group that is not its first."""
    with scratch() as folder:
        built = build(cell, cell.split(), workplace)
        fingerprint = cell.identity(built.split).fingerprint
        store = cell_store(cell, fingerprint, workplace.out, built.hardware, workplace.say)
        trained = train(built, folder, store, leaked(built))
        assist(built, trained)
