"""What the tests of the runner share: a small tree, the command, and a method that does as it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import SIZES, install, make_tree, run_main

BREAKS = '''
import multiprocessing
import os
import signal
import time
from pathlib import Path
from torch import nn
from spectral_tl_bench.methods.base import Method, Stage

class Breaks(Method):
    """Does what the file at ``order`` says."""
    order: str

    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

    def stages(self, task):
        def loss(module, batch):
            order = Path(self.order).read_text()
            if order == "raise":
                raise RuntimeError("the method's own mistake")
            if order == "interrupt":  # as Ctrl-C in this process, or in the one that this is a child of
                parent = multiprocessing.parent_process()
                os.kill(os.getpid() if parent is None else parent.pid, signal.SIGINT)
                time.sleep(20)
            return module(batch["image"]).square().mean()
        return [Stage("segment", task.budget.steps, loss=loss)]
'''


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("runner"))


@pytest.fixture
def stbench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command in this process and gives its exit code."""

    def run(*arguments: object) -> int:
        return run_main(monkeypatch, arguments)

    return run


@pytest.fixture
def small() -> list[str]:
    """Options of a run of two steps on a tiny backbone."""
    options = [
        "--steps",
        "2",
        "--pretrain-steps",
        "1",
        "--batch-size",
        "2",
        "--validations",
        "1",
        "--accelerator",
        "cpu",
        "--backbone",
        "compact",
    ]
    return options + [part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")]


@pytest.fixture
def order(tmp_path, monkeypatch):
    """The file that the breaking method obeys, the method being installed."""
    install(tmp_path / "site", "tiny_breaks", BREAKS, {"breaks": "tiny_breaks:Breaks"}, monkeypatch)
    path = tmp_path / "order.txt"
    path.write_text("work")
    return path
