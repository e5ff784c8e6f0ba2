"""Spectral TL Bench: spectral transfer learning for land-cover segmentation, measured one way."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectral_tl_bench.api import (
        board,
        compare,
        export_onnx,
        load_benchmark,
        load_model,
        load_results,
        make_method,
        plan,
        plot,
        predict,
        run,
    )

__version__ = "0.2.0"
__all__ = [
    "board", "compare", "export_onnx", "load_benchmark", "load_model", "load_results", "make_method", "plan", "plot",
    "predict", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Names of ``api``, imported when they are asked for: the package itself imports nothing heavy."""
    if name in __all__:
        return getattr(import_module("spectral_tl_bench.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
