"""Trained networks as ONNX files: the logits that PyTorch gives, and refusals that leave nothing."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spectral_tl_bench import export_onnx
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.maps import onnx_file

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, onnx_file.NEEDED)),
    reason="onnx, onnxruntime and onnxscript are not installed",
)


def test_without_the_packages_the_extra_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "NEEDED", ("onnx_that_nobody_has",))
    with pytest.raises(UserError, match=r"needs onnx_that_nobody_has\n.*spectral-tl-bench\[onnx\]"):
        export_onnx(trained.folders["pixel-mlp"], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("method", ["pixel-mlp", "lora"])
def test_a_file_gives_the_logits_of_pytorch_for_any_number_of_windows(trained, tmp_path, method):
    import onnxruntime

    model = trained.load(method)
    path = export_onnx(trained.folders[method], tmp_path / "deep" / "model.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for number in (1, 2, 5):
        images = torch.rand(number, 24, 16, 16) * 4_000
        (logits,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(logits, model(images).numpy(), rtol=1e-3, atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["bands"]) == list(model.bands) and json.loads(about["classes"]) == list(model.classes)
    assert about["window"] == "16" and about["fingerprint"] == model.fingerprint
    assert [one.name for one in path.parent.iterdir()] == ["model.onnx"], "weights are in the file"


class Guesses(nn.Module):
    """Random logits in every call."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.rand_like(images[:, :8])


class Looks(nn.Module):
    """Depends on values in a way that no graph can hold."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :8] if float(images.sum()) > 0 else images[:, 8:16]


@needs_onnx
def test_a_network_for_one_number_of_windows_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="does not run the network on 1 windows"):
        export_onnx(trained.folders["majority"], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
@pytest.mark.parametrize(("module", "said"), [(Guesses(), "other logits"), (Looks(), "cannot be written as ONNX")])
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(trained, tmp_path, module, said):
    model = replace(trained.load("pixel-mlp"), module=module)
    with pytest.raises(UserError, match=said):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
