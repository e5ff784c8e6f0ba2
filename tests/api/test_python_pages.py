"""The Python of docs/python.md and docs/peft.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import REPOSITORY
from tiny import quiet

import spectral_tl_bench
from spectral_tl_bench.api import running

PAGE = REPOSITORY / "docs" / "python.md"


def snippets(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S)


def test_every_call_is_in_the_table():
    named = set(re.findall(r"`([a-z_]+)\(", PAGE.read_text(encoding="utf-8").partition("\n## ")[0]))
    assert named == set(spectral_tl_bench.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(snippets(PAGE))))
def test_the_page_runs_on_the_sample(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spoken: dict[str, Any] = {}
    code = snippets(PAGE)[number].replace('out="runs")', 'out="runs", steps=2, jobs=1)')
    exec(compile(code, str(PAGE), "exec"), spoken)  # noqa: S102
    said = capsys.readouterr().out
    if "rows" in spoken:
        assert set(spoken["rows"]["state"]) == {"done"} and len(spoken["results"]) == 4 and "difference" in said
    if "batch" in spoken:
        assert spoken["batch"]["image"].shape == (8, 24, 64, 64) and spoken["sample"]["mask"].shape == (64, 64)
    if "trainer" in spoken:
        assert spoken["trainer"].global_step == 4


def test_the_snippet_about_weights_runs(tree, tmp_path, monkeypatch):
    rows = running.run(
        method="lora", benchmark="mts12-n2s", backbone="compact", data_root=tree, out=tmp_path / "runs", jobs=1,
        backbone_size={"width": 32, "depth": 2, "heads": 2, "patch": 8}, steps=2, batch_size=2, validations=1,
        window=16, allow_partial=True, say=quiet,
    )  # fmt: skip
    (snippet,) = snippets(REPOSITORY / "docs" / "peft.md")
    weights = rows["record"][0].with_name("selected.safetensors")
    told: dict[str, Any] = {"images": torch.full((2, 24, 16, 16), 700.0)}
    exec(compile(snippet.replace("runs/.../selected.safetensors", str(weights)), "docs/peft.md", "exec"), told)  # noqa: S102
    model = told["model"]
    assert told["logits"].shape == (2, 8, 16, 16) and torch.isfinite(told["logits"]).all()
    assert model.classes == model.benchmark.labels.names and len(model.bands) == 24
    assert torch.equal(model.module(model.transforms(told["images"])), told["logits"])
