"""Run cells: those with code of other packages each in a process of its own, and with several jobs all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from spectral_tl_bench import pause
from spectral_tl_bench.cores import available_cores
from spectral_tl_bench.defaults import HANG_AFTER
from spectral_tl_bench.endings import check_stopped, contained
from spectral_tl_bench.pulse import beat
from spectral_tl_bench.runner.apart import Call, Ended, run_apart, start_server
from spectral_tl_bench.runner.cell import Cell, Outcome, Say, facts_of, fail, finished, is_foreign, run_cell
from spectral_tl_bench.runner.cell_log import add_to_log, log_outputs
from spectral_tl_bench.runner.display import Display, display
from spectral_tl_bench.runner.lease import BUSY, Lease, free_if_dead
from spectral_tl_bench.runner.memory import advice
from spectral_tl_bench.runner.run import closing_line
from spectral_tl_bench.runner.standing import forget
from spectral_tl_bench.storage import sweep_scratch
from spectral_tl_bench.storage.signs import POLL
from spectral_tl_bench.training.hardware import Hardware


def automatic_jobs(cells: Sequence[Cell], hardware: Hardware | None = None, gpus: Sequence[str] = ()) -> int:
    """One process per core (four at most) for cells of the small sample without a GPU, otherwise one.

    Real benchmarks want all cores, and a GPU, for one cell at a time. With a choice of GPUs each of them has a cell.
    """
    import torch

    hardware = hardware or Hardware()
    if gpus:
        return max(1, min(len(cells), len(gpus) // hardware.devices))
    if hardware.processes > 1 or torch.cuda.is_available() or not all(cell.opened.track == "sample" for cell in cells):
        return 1
    return max(1, min(len(cells), available_cores(), 4))


def execute_in_processes(
    cells: Sequence[Cell], out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool, jobs: int,
    hang_after: float = HANG_AFTER, before: int = 0, gpus: Sequence[str] = (),
) -> list[Outcome]:  # fmt: skip
    """Run cells ``jobs`` at a time, each process with its share of the cores.

    With one job, only cells with code of other packages get a process, or such as have a choice of GPUs or run on
    several; the others run in this one.

    Args:
        out: Root of the record store.
        workers: Readers of each cell: processes, or threads where all chips are packed.
        fresh: Run again even where a finished record exists.
        jobs: Number of processes.
        hang_after: Minutes after which a process without a sign of life is stopped; 0 for never.
        before: Cells of the same run that are over already.
        gpus: As ``CUDA_VISIBLE_DEVICES`` names them: each process has its own, and sees no other.

    Returns:
        The outcomes in the order of the cells. A process that dies (a crash, out of memory, killed) fails its own cell.
    """
    sweep_scratch()
    outcomes: dict[int, Outcome] = {}
    with display(out, before + len(cells), say) as shown:
        run = _Run(out, hardware, workers, shown, fresh, jobs, hang_after, gpus)
        with closing(run.outcomes(cells)) as endings:
            for number, outcome in endings:
                outcomes[number] = outcome
                shown.say(closing_line(outcome, before + len(outcomes), before + len(cells)))
    return [outcomes[number] for number in range(len(cells))]


class _Run:
    """How the cells of a run are run."""

    def __init__(
        self, out: Path, hardware: Hardware, workers: int, shown: Display, fresh: bool, jobs: int, hang_after: float,
        gpus: Sequence[str],
    ) -> None:  # fmt: skip
        self.out, self.hardware, self.workers, self.shown, self.say = out, hardware, workers, shown, shown.say
        self.fresh, self.jobs, self.seconds = fresh, jobs, hang_after * 60
        self.leases: dict[int, Lease] = {}
        each = hardware.devices
        self.gpus = [",".join(gpus[first : first + each]) for first in range(0, len(gpus) - each + 1, each)]
        self.alone = not gpus and hardware.processes == 1

    def outcomes(self, cells: Sequence[Cell]) -> Generator[tuple[int, Outcome]]:
        """Each cell's number and outcome, as soon as it ends; those that other runs have come last."""
        left = dict(enumerate(cells))
        turn = dict(left)
        while left:
            with closing(self._round(turn)) as endings:
                for number, outcome in endings:
                    self.shown.end(number, outcome)
                    if outcome.state == BUSY and outcome.record is not None:
                        if number not in self.leases:
                            self.say(f"{outcome.cell.title} | {outcome.message} runs it; it comes last here")
                            self.leases[number] = Lease(outcome.record.parent)
                    else:
                        del left[number]
                        self.leases.pop(number, None)
                        yield number, outcome
            turn = {number: left[number] for number in self._free()}

    def _free(self) -> list[int]:
        """Numbers of the cells left that other runs have no more; waits for the first of them."""
        while self.leases:
            check_stopped()
            if free := [n for n, lease in self.leases.items() if pause.asked() or not lease.is_held()]:
                return free
            beat()
            time.sleep(POLL)
        return []

    def _round(self, cells: dict[int, Cell]) -> Generator[tuple[int, Outcome]]:
        """Each cell's number and outcome, be it that another run has it."""
        if self.jobs > 1:
            yield from self._apart(cells)
            return
        for number, cell in cells.items():
            check_stopped()
            apart = is_foreign(cell) or not self.alone
            yield from self._apart({number: cell}) if apart else [(number, self._here(number, cell))]

    def _here(self, number: int, cell: Cell) -> Outcome:
        self.shown.begin(number, cell)
        return run_cell(cell, self.out, self._hardware(cell), self.workers, self.say, self.fresh, wait=False)

    def _call(self, cell: Cell) -> Call | None:
        """What a process of its own is asked to do; None where the cell cannot be sent to one."""
        try:
            with contained():
                return Call.of(_run_apart, cell, self.out, self._hardware(cell), self.workers, self.fresh)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.say(f"{cell.title} | cannot have a process of its own, it runs in this one: {reason}")
            return None

    def _hardware(self, cell: Cell) -> Hardware:
        """The hardware with a number of threads."""
        import torch

        if self.hardware.threads:
            return self.hardware
        share = torch.get_num_threads() if self.jobs == 1 else max(1, available_cores() // self.jobs)
        return replace(self.hardware, threads=1 if cell.opened.is_small else share)

    def _apart(self, cells: dict[int, Cell]) -> Iterator[tuple[int, Outcome]]:
        """Run cells in processes of their own; those that cannot be sent to one follow in this one.

        Once a pause is asked for, no more is sent: what is left is said to be paused.
        """
        started, left = time.time(), []
        has: dict[int, str] = {}  # which GPUs

        def calls() -> Iterator[tuple[int, Call]]:
            for number, cell in cells.items():
                if not pause.asked() and (call := self._call(cell)) is not None:
                    self.shown.begin(number, cell)
                    if self.gpus:
                        has[number] = self.gpus.pop(0)
                        call = replace(call, environment={"CUDA_VISIBLE_DEVICES": has[number]})
                    yield number, call
                else:
                    left.append(number)

        start_server(sorted({type(cell.method).__module__ for cell in cells.values() if not is_foreign(cell)}))
        with closing(run_apart(calls(), self.jobs, self.say, self.shown.complain, self.seconds or None)) as endings:
            for number, ended in endings:
                if number in has:
                    self.gpus.append(has.pop(number))
                yield number, self._outcome(cells[number], ended, started)
        for number in left:
            check_stopped()
            yield number, self._here(number, cells[number])

    def _outcome(self, cell: Cell, ended: Ended, since: float) -> Outcome:
        if not ended.reason:
            state, record, miou, message = ended.value
            return Outcome(cell, state, record, miou, message)
        if pause.asked():  # a batch system may end all processes of a job while they make ready
            return Outcome(cell, "paused", None, None, "the same command goes on")
        sweep_scratch()
        failure = {"kind": "Hung" if ended.hung else "ProcessDied", "message": ended.reason}
        if "SIGKILL" in ended.reason:
            failure["message"] += f": {advice(cell, self.hardware.passes)}"
        try:
            with contained():
                fields, path = facts_of(cell, self.out, self._hardware(cell).threads)
        except Exception as error:
            return Outcome(cell, "failed", None, None, f"{ended.reason}; no record can be made of it: {error}")
        add_to_log(path.parent, ended.reason)
        free_if_dead(path.parent)
        # What ended after its record was written is finished.
        written = path.is_file() and (not self.fresh or path.stat().st_mtime >= since)
        record = finished(cell, path, fields, self.say) if written else None
        if record is not None and record.scores is not None:
            return Outcome(cell, "done", path, record.scores.selected.miou)
        forget(self.out, path.parent.name)
        log = f"{ended.reason}\n\nthe end of its output:\n{ended.tail}\n"
        return fail(cell, self.out, fields, failure, log, "the end of its output")


def _run_apart(
    cell: Cell, out: Path, hardware: Hardware, workers: int, fresh: bool
) -> tuple[str, Path | None, float | None, str]:
    """In a process of its own: run a cell. It is not sent back."""
    log_outputs()
    outcome = run_cell(cell, out, hardware, workers, _say, fresh, wait=False)
    return outcome.state, outcome.record, outcome.miou, outcome.message


def _say(text: str) -> None:
    os.write(1, (text + "\n").encode(errors="backslashreplace"))  # one write per line, so that lines do not mix
