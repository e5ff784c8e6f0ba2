"""What a node does that is not the first one of a run: take part in the cells that the first one posts."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.runner.nodes import Board, Place, joined
from spectral_tl_bench.runner.together import OUT_OF_MEMORY, other, told_in

_POLL = 0.3


def serve(place: Place, out: Path, devices: int) -> None:
    """Take part until the run is over; nothing is written or said.

    Raises:
        UserError: If the first node cannot be reached, or is gone before the run is over.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the first node pauses
    board, number = joined(place, out), 1
    try:
        while not board.is_over():
            board.beat(place.node)
            if (content := board.cell(number)) is None:
                time.sleep(_POLL)
                continue
            _take_part(board, number, content, place.node, devices)
            number += 1
        board.store.add("left", 1)
    except RuntimeError as error:  # of the store
        raise UserError(
            f"the first node is gone: {str(error).splitlines()[0]}", where=f"{place.address}:{place.port}",
            fix="the same command, on every node, goes on",
        ) from None  # fmt: skip


def _take_part(board: Board, number: int, content: bytes, node: int, devices: int) -> None:
    asked, sent = pickle.loads(content)  # noqa: S301 - signed by the first node
    if asked != devices:
        board.tell(number, f"node {node} has --devices {devices}, the first one {asked}")
        return
    context, first = multiprocessing.get_context("spawn"), node * devices
    with tempfile.TemporaryDirectory(prefix="stbench-group-") as name:
        arguments = [
            (sent, rank, Path(name), torch.get_num_threads(), number) for rank in range(first, first + devices)
        ]
        group = [context.Process(target=other, args=each, name=f"stbench device {each[1]}") for each in arguments]
        try:
            for process in group:
                process.start()
            told = False
            while any(process.is_alive() for process in group) and not board.has_ended(number):
                board.beat(node)
                if not told and (trouble := _trouble(group, first, Path(name))):
                    board.tell(number, f"{trouble} (on node {node})")
                    told = True
                time.sleep(_POLL)
            if not told and not board.has_ended(number) and (trouble := _trouble(group, first, Path(name))):
                board.tell(number, f"{trouble} (on node {node})")
        finally:
            for process in group:
                if process.pid is not None and process.is_alive():
                    process.kill()
                    process.join()


def _trouble(group: Sequence[BaseProcess], first: int, folder: Path) -> str:
    """What has happened to one of these processes; empty if nothing has."""
    for rank, process in enumerate(group, first):
        code = process.exitcode
        if code == OUT_OF_MEMORY:
            return f"out of memory in process {rank}"
        if code is not None and code < 0:
            return f"process {rank} was killed by signal {-code} ({signal.Signals(-code).name})"
        if code:
            return f"process {rank}: {told_in(folder, rank) or f'exit code {code}'}"
    return ""
