"""The settings of the process that a method shares with all others: what they are, and putting them back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

Access = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Reads a setting, and sets it."""


def _cudnn(name: str) -> Access:
    def read() -> Any:
        return getattr(torch.backends.cudnn, name)

    def write(value: Any) -> None:
        setattr(torch.backends.cudnn, name, value)

    return read, write


_SETTINGS: dict[str, Access] = {
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_float32_matmul_precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch.use_deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch.autograd.set_detect_anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    **{f"torch.backends.cudnn.{name}": _cudnn(name) for name in ("enabled", "benchmark", "deterministic")},
    "the default device": (torch.get_default_device, torch.set_default_device),
    "the working folder": (Path.cwd, os.chdir),
}


def settings() -> dict[str, Any]:
    """All of them, by name; environment variables one by one."""
    values = {name: read() for name, (read, _) in _SETTINGS.items()}
    return values | {f"environment variable {name}": value for name, value in os.environ.items()}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@contextmanager
def undone() -> Iterator[None]:
    """Whatever happens in the block, settings and random states are afterwards what they were."""
    before, environment, states = {name: read() for name, (read, _) in _SETTINGS.items()}, dict(os.environ), _states()
    try:
        yield
    finally:
        for name, (read, write) in _SETTINGS.items():
            if read() != before[name]:
                write(before[name])
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        torch.set_rng_state(states["torch.manual_seed"])
        random.setstate(states["random.seed"])
        np.random.set_state(states["numpy.random.seed"])


def _states() -> dict[str, Any]:
    return {
        "torch.manual_seed": torch.get_rng_state(),
        "random.seed": random.getstate(),
        "numpy.random.seed": np.random.get_state(legacy=True),
    }


def reseeded(action: Callable[[], None]) -> list[str]:
    """Which global random generators an action seeds.

    It is done twice, from different states: where both end in the same one, the action has set it.

    Args:
        action: What is looked at.
    """
    ends = []
    for seed in (11, 12):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        action()
        ends.append({name: _comparable(state) for name, state in _states().items()})
    return [name for name, state in ends[0].items() if state == ends[1][name]]


def _comparable(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    return repr([part.tobytes() if isinstance(part, np.ndarray) else part for part in state])
