"""How the benchmarks measure: interleaved rounds, paired ratios, peak memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

MEBIBYTE = 2**20


def interleaved(
    arms: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu", warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of every arm in every round; all arms run once per round, so that a busy machine slows all of them.

    Args:
        arms: What to run, by name.
        rounds: Rounds that count.
        device: Where the arms work; anything but ``cpu`` is waited for.
        warm_up: Rounds before these.

    Returns:
        Name -> one value per round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(warm_up + rounds):
        for name, run in arms.items():
            _wait_for(device)
            started = time.perf_counter()
            run()
            _wait_for(device)
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def paired_ratio(values: list[float], others: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """Most bytes of tensors that one run held at once, on top of those that were there before it.

    On a GPU from the allocator's own count; on the CPU from the profiler's record of every allocation, which holds
    tensors but not what libraries allocate past PyTorch.
    """
    run()  # what is allocated once and kept, such as the state of an optimiser, is not of the run
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        held += change
        peak = max(peak, held)
    return peak


class Used(NamedTuple):
    """What a command took: exit code, seconds by the clock and of the CPU, and the most bytes of memory at once."""

    code: int
    wall: float
    cpu: float
    peak: int


def run_measured(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Used, str]:
    """Run a command; what it and all processes below it took, and what it printed.

    Memory is the sum of the processes' proportional shares (PSS), looked at five times a second: what several have in
    common counts once, and so do files that are mapped, which the system takes back as it needs.
    """
    peak, begun = 0, time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        ended, status, used = 0, 0, None
        while not ended:
            peak = max(peak, _share_of(process.pid))
            time.sleep(0.2)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        assert used is not None
        return Used(process.returncode, wall, used.ru_utime + used.ru_stime, peak), out.read()


def _share_of(number: int) -> int:
    """Of a process and all below it (Linux)."""
    place, found = Path(f"/proc/{number}"), 0
    try:
        found = 1024 * int(place.joinpath("smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
        for thread in place.joinpath("task").iterdir():
            found += sum(map(_share_of, map(int, (thread / "children").read_text().split())))
    except (OSError, IndexError):  # it has just ended
        pass
    return found


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
