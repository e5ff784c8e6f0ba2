"""Run cells in several processes of this machine: for many small cells that leave cores idle one by one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from spectral_tl_bench.runner.cell import Cell, Outcome, Say, run_cell
from spectral_tl_bench.runner.run import closing_line
from spectral_tl_bench.storage import CACHE_VARIABLE
from spectral_tl_bench.training.hardware import Hardware


def available_cores() -> int:
    """Cores that this process may use, which in a container or a batch job are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def automatic_jobs(cells: Sequence[Cell]) -> int:
    """One process per core (four at most) for cells of the small sample without a GPU, otherwise one.

    Real benchmarks want all cores, and a GPU, for one cell at a time.
    """
    import torch

    if torch.cuda.is_available() or not all(cell.opened.track == "sample" for cell in cells):
        return 1
    return max(1, min(len(cells), available_cores(), 4))


def execute_in_processes(
    cells: Sequence[Cell], out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool, jobs: int
) -> list[Outcome]:
    """Run cells ``jobs`` at a time, each process with its share of the cores.

    Args:
        cells: What to run.
        out: Root of the record store.
        hardware: Device and precision.
        workers: Reader processes of each cell.
        say: Prints one line.
        fresh: Run again even where a finished record exists.
        jobs: Number of processes.

    Returns:
        The outcomes in the order of the cells. A process that dies (out of memory, killed) fails the cells that
        had not ended; what others have finished stays.
    """
    context = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(["spectral_tl_bench.runner.processes"])
    threads = max(1, available_cores() // jobs)
    outcomes: dict[int, Outcome] = {}
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_begin, initargs=(threads, os.environ.get(CACHE_VARIABLE))
    ) as pool:
        futures: dict[Future[Outcome], int] = {
            pool.submit(run_cell, cell, out, hardware, workers, _say, fresh): number
            for number, cell in enumerate(cells)
        }
        try:
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    number = futures[future]
                    outcomes[number] = _result(future, cells[number])
                    say(closing_line(outcomes[number], len(outcomes), len(cells)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
    return [outcomes[number] for number in range(len(cells))]


def _result(future: Future[Outcome], cell: Cell) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(cell, "failed", None, None, "its process died (out of memory, or killed); try --jobs 1")


def _begin(threads: int, cache: str | None) -> None:
    import signal

    import torch

    if cache is not None:  # the server that starts processes has the environment of its own start
        os.environ[CACHE_VARIABLE] = cache

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    torch.set_num_threads(threads)


def _say(text: str) -> None:
    os.write(1, (text + "\n").encode())  # one write per line, so that lines of two processes do not mix
