"""A trained network as an ONNX file, which other programs run without PyTorch."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spectral_tl_bench.console import user_path
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import write_bytes
from spectral_tl_bench.maps.model import LoadedModel, load_model
from spectral_tl_bench.storage.output import check_file

NEEDED = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-3
"""How far logits may be apart, as a share of the largest."""
BATCHES = (1, 3)
"""Numbers of windows that both are asked for."""


class _Whole(nn.Module):
    """From pixels in the benchmark's unit to logits."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.transforms, self.module = copy.deepcopy(model.transforms).cpu(), copy.deepcopy(model.module).cpu()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(self.transforms(images))
        return logits


def export_onnx(model: LoadedModel | Path | str, out: Path | str) -> Path:
    """Write a trained network as an ONNX file, and see that it gives the logits that PyTorch gives.

    The file maps ``images`` (B, C, H, W) float32, in the benchmark's unit and of the side of the model's windows, to
    ``logits`` (B, K, H, W); B is free, normalisation is inside. Its metadata name bands, unit, classes and window.

    Args:
        model: The network, or what ``load_model`` takes.
        out: The file; one that is there is replaced.

    Returns:
        The path of the file.

    Raises:
        UserError: If a package that this needs is not installed, the method cannot be exported, its logits differ, or
            the file cannot be written. Nothing is left then.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"an export to ONNX needs {', '.join(missing)}", fix="pip install 'spectral-tl-bench[onnx]'")
    path = user_path(out)
    check_file(path, "out")
    model = model if isinstance(model, LoadedModel) else load_model(model)
    whole = _Whole(model).eval()
    content = _exported(model, whole)
    _check(model, whole, content)
    write_bytes(path, content)
    return path


def _exported(model: LoadedModel, whole: nn.Module) -> bytes:
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                whole, (_windows(model, 2),), input_names=["images"], output_names=["logits"], dynamo=True,
                dynamic_shapes={"images": {0: torch.export.Dim("windows")}}, verbose=False,
            )  # fmt: skip
        proto = program.model_proto
    except Exception as error:  # whatever the exporter says of the operations of a method
        raise UserError(
            f"{model.title}: the network cannot be written as ONNX ({type(error).__name__})",
            expected="operations that the exporter of PyTorch knows", fix="use `load_model` where it is to run",
        ) from error  # fmt: skip
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    sensor = model.benchmark.sensor
    about = {
        "title": model.title, "fingerprint": model.fingerprint, "window": model.window, "unit": sensor.unit,
        "bands": list(model.bands), "wavelengths": list(sensor.wavelengths), "classes": list(model.classes),
    }  # fmt: skip
    for name, value in about.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    content: bytes = proto.SerializeToString()
    return content


def _windows(model: LoadedModel, number: int) -> Tensor:
    """Windows (B, C, H, W) of noise as bright as the training chips."""
    generator = torch.Generator().manual_seed(number)
    noise = torch.randn(number, len(model.bands), model.window, model.window, generator=generator)
    mean, std = (torch.from_numpy(values).float()[:, None, None] for values in (model.statistics.mean,
                                                                               model.statistics.std))  # fmt: skip
    return noise * std + mean


def _check(model: LoadedModel, whole: nn.Module, content: bytes) -> None:
    for number in BATCHES:
        images = _windows(model, number)
        with torch.inference_mode():
            wanted = whole(images).numpy()
        logits = _run(model, content, images)
        apart = float(np.abs(logits - wanted).max()) if logits.shape == wanted.shape else float("inf")
        if not apart <= TOLERANCE * max(float(np.abs(wanted).max()), 1e-6):
            raise UserError(
                f"{model.title}: ONNX gives other logits than PyTorch, by {apart:.1e}",
                expected=f"{TOLERANCE:g} of the largest at most", fix="use `load_model` where it is to run",
            )  # fmt: skip


def _run(model: LoadedModel, content: bytes, images: Tensor) -> NDArray[np.float32]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"images": images.numpy()})
    except Exception as error:  # whatever the runtime says of a graph
        raise UserError(
            f"{model.title}: ONNX Runtime does not run the network on {len(images)} windows ({type(error).__name__})",
            expected="a network that takes any number of windows", fix="use `load_model` where it is to run",
        ) from error  # fmt: skip
    return np.asarray(logits)
