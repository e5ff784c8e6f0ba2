"""What a script or a notebook uses: the names and arguments of the commands, with objects and data frames for answers.

All of these are in ``spectral_tl_bench``, too, which imports nothing heavy before one of them is used. A mistake in an
argument is the ``UserError`` (of data: ``DataError``) whose text the command would print.
"""

from spectral_tl_bench.api.data import ROLES, LoadedBenchmark, load_benchmark
from spectral_tl_bench.api.maps import predict
from spectral_tl_bench.api.results import board, compare, load_results, plot
from spectral_tl_bench.api.running import Choices, plan, run
from spectral_tl_bench.errors import DataError, UserError
from spectral_tl_bench.maps.model import LoadedModel, load_model
from spectral_tl_bench.maps.onnx_file import export_onnx
from spectral_tl_bench.maps.predict import SceneMap
from spectral_tl_bench.methods.registry import make_method

__all__ = [
    "ROLES", "Choices", "DataError", "LoadedBenchmark", "LoadedModel", "SceneMap", "UserError", "board", "compare",
    "export_onnx", "load_benchmark", "load_model", "load_results", "make_method", "plan", "plot", "predict", "run",
]  # fmt: skip
