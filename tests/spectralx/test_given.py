"""Weights of the release on a benchmark here."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_tree
from write_release import MINI, write

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.converters import ConversionRequest
from spectral_tl_bench.runner.given import evaluate_given
from spectralx import SpectralX
from spectralx.method_release import convert
from spectralx.released import open_converted

LABELS = builtin_benchmarks()["mts12-n2s"].labels.names


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpectralX:
    folder = tmp_path_factory.mktemp("given")
    source = write(folder, 2, "scalemae", replace(MINI, bands=24, rows=len(LABELS) + 1))
    convert(ConversionRequest(source, folder / "given.safetensors", "ours"))
    return open_converted(folder / "given.safetensors")


def test_weights_of_the_release_are_tested_on_a_benchmark(model: SpectralX, tmp_path: Path):
    root = make_tree(tmp_path)
    result = evaluate_given(model, "mts12-n2s", window=32, data_root=root)
    assert len(result.chips) == 4
    matrix = sum(result.chips["matrix"])
    assert matrix.shape == (len(LABELS), len(LABELS)) and matrix.sum() > 0
    assert result.scores.oa == pytest.approx(np.trace(matrix) / matrix.sum())
    assert "no record" in str(result)
    # The numbers are those of the weights: a head that says one class everywhere reaches that class's share.
    with torch.no_grad():
        kept = model.decoder.head.classify.bias.clone()
        model.decoder.head.classify.bias[3] = 1e6
        always = evaluate_given(model, "mts12-n2s", window=32, data_root=root)
        model.decoder.head.classify.bias.copy_(kept)
    assert sum(always.chips["matrix"]).sum(axis=0)[3] == matrix.sum()
    again = evaluate_given(model, "mts12-n2s", window=32, data_root=root)
    assert [chip.tolist() for chip in again.chips["matrix"]] == [chip.tolist() for chip in result.chips["matrix"]]


def test_weights_for_another_benchmark_are_refused(model: SpectralX, tmp_path: Path):
    root = make_tree(tmp_path)
    with pytest.raises(UserError, match="larger than the chips"):
        evaluate_given(model, "mts12-n2s", window=64, data_root=root)
    model = copy.deepcopy(model)
    model.decoder.head.classify = torch.nn.Conv2d(32, 3, 1)
    with pytest.raises(UserError, match=r"they give \(1, 3, 32, 32\)"):
        evaluate_given(model, "mts12-n2s", window=32, data_root=root)
    with pytest.raises(UserError, match="not for mts12-n2s"):
        evaluate_given(torch.nn.Conv2d(5, len(LABELS), 1), "mts12-n2s", window=32, data_root=root)
