"""Cells on the devices of several nodes: where the nodes meet, and what they tell each other.

The same command is started once on each. The first one plans, writes and speaks; it has a store of keys that the others
connect to, in which it posts cells. What it posts is signed with a key that only who may read the records can know.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as processes

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import atomic_path
from spectral_tl_bench.training.hardware import Meeting

FOLDER = ".jobs"
CONNECT = timedelta(minutes=10)
"""How long a node waits for the first one, which may start later."""
SILENT = 90.0
"""Seconds without a sign of a node after which it counts as gone."""
HOW = "srun --ntasks-per-node=1 stbench run ..., or on each node with NODE_RANK, MASTER_ADDR and MASTER_PORT set"


@dataclass(frozen=True)
class Place:
    """Which node this is, and where they meet.

    Attributes:
        node: Its number; 0 plans and writes.
        address: Name or address of the first node.
        port: Port there.
    """

    node: int
    address: str
    port: int


def placed(nodes: int, environ: Mapping[str, str] = os.environ) -> Place:
    """The place of this process, as SLURM or whoever has started it says.

    Raises:
        UserError: If nobody says it, or another number of processes was started.
    """
    try:
        if "SLURM_PROCID" in environ and "NODE_RANK" not in environ and "GROUP_RANK" not in environ:
            node, started = int(environ["SLURM_PROCID"]), int(environ.get("SLURM_NTASKS", nodes))
            address = environ.get("MASTER_ADDR") or _first_host(environ["SLURM_JOB_NODELIST"])
            port = int(environ.get("MASTER_PORT") or 20000 + int(environ["SLURM_JOB_ID"]) % 10000)
        else:
            node = int(environ["NODE_RANK"] if "NODE_RANK" in environ else environ["GROUP_RANK"])
            # torchrun may have a store of its own at the port.
            started, own_store = int(environ.get("GROUP_WORLD_SIZE", nodes)), "TORCHELASTIC_RUN_ID" in environ
            address, port = environ["MASTER_ADDR"], int(environ["MASTER_PORT"]) + own_store
    except (KeyError, ValueError) as error:
        raise UserError(
            f"--num-nodes {nodes}, but nothing says which node this is ({error})",
            expected="the same command once on every node", fix=HOW,
        ) from None  # fmt: skip
    if started != nodes or not 0 <= node < nodes:
        raise UserError(
            f"--num-nodes {nodes}, but {started} processes were started, and this is number {node}",
            expected="one process for each node", fix=HOW,
        )  # fmt: skip
    return Place(node, address, port)


def _first_host(names: str) -> str:
    """The first of SLURM's list of hosts, as scontrol expands it."""
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", names], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ValueError(f"scontrol cannot be run: {error.strerror}") from None
    if done.returncode or not done.stdout.split():
        raise ValueError(f"scontrol does not know {names!r}")
    return done.stdout.split()[0]


def _key_file(out: Path, place: Place) -> Path:
    return out / FOLDER / f"nodes-{place.port}.key"


@contextlib.contextmanager
def leading(place: Place, out: Path) -> Iterator[Meeting]:
    """Inside, other nodes can connect to this one; at the end they are told that the run is over.

    Raises:
        UserError: If the port cannot be had.
    """
    meeting = Meeting(place.address, place.port, secrets.token_hex(32))
    with atomic_path(_key_file(out, place)) as temporary:
        temporary.write_text(meeting.key, encoding="ascii")
        temporary.chmod(0o600)
    try:
        try:
            store: Any = processes.TCPStore(place.address, place.port, is_master=True, wait_for_workers=False)
        except RuntimeError as error:
            raise UserError(
                f"nodes cannot meet at {place.address}:{place.port}: {str(error).splitlines()[0]}",
                fix="set MASTER_PORT to a free port, on every node",
            ) from None
        try:
            yield meeting
        finally:
            store.set("over", b"1")
            last, here = time.monotonic() + 5, store.add("here", 0)
            while store.add("left", 0) < here and time.monotonic() < last:
                time.sleep(0.1)
    finally:
        _key_file(out, place).unlink(missing_ok=True)


def joined(place: Place, out: Path) -> Board:
    """The first node's board, seen from another one.

    Raises:
        UserError: If it cannot be reached, or the folder of records is another one there.
    """
    try:
        processes.TCPStore(place.address, place.port, is_master=False, timeout=CONNECT)
    except RuntimeError as error:
        raise UserError(
            f"the first node cannot be reached at {place.address}:{place.port}: {str(error).splitlines()[0]}", fix=HOW
        ) from None
    path, last = _key_file(out, place), time.monotonic() + 60
    while not path.is_file():  # a shared disk may show it late
        if time.monotonic() > last:
            raise UserError(
                "the first node's key is not here", where=path, expected="--out on a disk that all nodes see"
            )
        time.sleep(0.5)
    board = Board(Meeting(place.address, place.port, path.read_text(encoding="ascii")))
    board.store.add("here", 1)
    return board


class Board:
    """What nodes tell each other."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting
        self.store: Any = connected(meeting)
        self._beats: dict[int, tuple[int, float]] = {}

    def post(self, content: bytes) -> int:
        """Post a cell; gives its number."""
        number = self.store.add("posted", 1)
        self.store.set(f"cell {number}", self._signature(number, content) + content)
        return number

    def cell(self, number: int) -> bytes | None:
        """A posted cell, if it is there.

        Raises:
            UserError: If it was posted by somebody else.
        """
        if not self.store.check([f"cell {number}"]):
            return None
        posted = self.store.get(f"cell {number}")
        if not hmac.compare_digest(posted[:32], self._signature(number, posted[32:])):
            raise UserError("a cell was posted by somebody who has not the key of this run", fix="run it again")
        return posted[32:]

    def _signature(self, number: int, content: bytes) -> bytes:
        return hmac.digest(self.meeting.key.encode(), f"{number} ".encode() + content, "sha256")

    def end(self, number: int) -> None:
        """Say that a cell has ended, however."""
        self.store.set(f"end {number}", b"1")

    def is_over(self) -> bool:
        """Whether the whole run is."""
        return bool(self.store.check(["over"]))

    def has_ended(self, number: int) -> bool:
        """Whether a cell has; the process that would have said so may have been killed."""
        return any(self.store.check([key]) for key in (f"end {number}", f"cell {number + 1}", "over"))

    def tell(self, number: int, trouble: str) -> None:
        """Say what has gone wrong with a cell on this node."""
        self.store.set(f"trouble {number}", trouble.encode())

    def trouble(self, number: int, nodes: int) -> str:
        """What has gone wrong on another node; empty if nothing has."""
        if self.store.check([f"trouble {number}"]):
            return str(self.store.get(f"trouble {number}").decode(errors="replace"))
        now = time.monotonic()
        for node in range(1, nodes):
            count = self.store.add(f"beat {node}", 0)
            before = self._beats.get(node)
            if before is None or before[0] != count:
                self._beats[node] = count, now
            elif now - before[1] > SILENT:
                return f"node {node} has given no sign for {SILENT:.0f} s"
        return ""

    def beat(self, node: int) -> None:
        """Give a sign of this node."""
        self.store.add(f"beat {node}", 1)


def connected(meeting: Meeting) -> Any:
    """The store of keys, for one user of it."""
    return processes.TCPStore(meeting.address, meeting.port, is_master=False, timeout=CONNECT)
