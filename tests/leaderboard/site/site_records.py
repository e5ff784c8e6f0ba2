"""A small store for the tests of the site: several tracks, methods, seeds, failures, pictures, and text that bites."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks
from spectral_tl_bench.files import digest
from spectral_tl_bench.leaderboard.measured import measure_record
from spectral_tl_bench.results.store import read_record, write_record

EVIL = "</script><script>document.title='bitten'</script><img src=x onerror=\"document.title='bitten'\"> & \u2028'"
"""What a stranger's record may hold in any of its texts."""

BENCHMARKS = ("dfc2020-spring", "mts12-n2s", "mts12-id")
METHODS: tuple[tuple[str, str, str | None, int, float, dict[str, Any]], ...] = (
    ("spectralx", "spectralx", "vit-large", 8_200_000, 0.80, {"rank": 16}),
    ("lora", "peft", "vit-large", 3_400_000, 0.70, {"rank": 16}),
    ("lora", "peft", "vit-base", 800_000, 0.60, {"rank": 4}),
    ("frozen", "baseline", "vit-base", 0, 0.592, {}),
    ("unet", "from scratch", None, 31_000_000, 0.40, {}),
    ("broken", "peft", "vit-base", 500_000, 0.30, {}),
)
"""Name, family, backbone, trainable parameters, share of right pixels, options; the best first."""
CHIPS, SIDE = 12, 24


def make_store(root: Path) -> Path:
    """Write the records of all tracks.

    On the reproduced track ``unet`` lacks a benchmark, ``broken`` failed on one and has one seed fewer on another,
    and ``frozen`` has one seed fewer on the reference; the sample track has one method whose every text is ``EVIL``.
    """
    for name in BENCHMARKS:
        for method in METHODS:
            for seed in (0, 1):
                lacking = (("unet", "mts12-n2s"), ("frozen", "mts12-id", 1), ("broken", "dfc2020-spring", 1))
                if (method[0], name) in lacking or (method[0], name, seed) in lacking:
                    continue
                failed = (method[0], name) == ("broken", "mts12-n2s")
                _write(root, name, method, seed, failed=failed)
    for method in METHODS[:2]:
        _write(root, "mts12-n2s", method, 0, track="sample")
    evil = {"method": "evil", "family": EVIL, "options": {EVIL: EVIL}, "settings": {EVIL: [EVIL]}, "device": EVIL}
    _write(root, "mts12-n2s", METHODS[3], 0, track="sample", statement=EVIL, **evil)
    _write(root, "dfc2020-spring", METHODS[3], 0, track="sample", failed=True, message=EVIL, statement=EVIL, **evil)
    _write(
        root,
        "mts12-n2s",
        METHODS[2],
        0,
        track="demonstration",
        benchmark="own.Bench",
        dataset=EVIL,
        classes=_evil_classes(),
    )
    _write(root, "mts12-n2s", METHODS[1], 0, target_images=True)
    return root


def _evil_classes() -> tuple[str, ...]:
    return tuple(f"{EVIL} {number}" for number in range(8))


def _write(
    root: Path,
    name: str,
    method: tuple[Any, ...],
    seed: int,
    /,
    *,
    failed: bool = False,
    message: str = "",
    **changes: Any,
) -> None:
    benchmark = builtin_benchmarks()[name]
    fields = _fields(benchmark, method, seed, changes)
    if failed:
        measured = ("data", "majority_class", "parameters", "stages", "seconds", "device", "selection")
        fields = {key: value for key, value in fields.items() if key not in measured}
        error = {"kind": "RuntimeError", "message": message or "CUDA <b>out</b> of memory"}
        write_record(root, {**fields, "status": "failed", "error": error})
        return
    picture = _picture(benchmark, seed + round(100 * method[4]))
    sha256 = hashlib.sha256(picture).hexdigest()
    fields["pictures"] = {"file": f"pictures-{sha256[:16]}.png", "sha256": sha256, "chips": [f"{name}-0", "<b>1</b>"]}
    path = write_record(root, fields, _frame(benchmark, seed, *method[:1], method[4]))
    (path.parent / f"pictures-{sha256[:16]}.png").write_bytes(picture)
    folder = root / fields["benchmark"] / f"pictures-{measure_record(read_record(path)).target}"
    if folder.exists():
        return
    folder.mkdir()
    (folder / "label.png").write_bytes(_picture(benchmark, 0))
    colours = []
    for title in ("true", "false"):
        noise = np.random.default_rng(len(title)).integers(0, 255, (SIDE, 2 * SIDE, 3), dtype=np.uint8)
        (folder / f"{title}.png").write_bytes(_png(Image.fromarray(noise)))
        colours.append({"file": f"{title}.png", "title": f"{title} colour", "bands": ["<b>", "B03", "B02"]})
    sizes = [[SIDE, SIDE]] * 2
    (folder / "chips.json").write_text(json.dumps({"chips": [f"{name}-0"], "sizes": sizes, "colours": colours}))


def _fields(benchmark: Benchmark, method: tuple[Any, ...], seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    name, family, backbone, trainable, _, options = method
    size = {"width": 768, "depth": 12, "heads": 12, "patch": 16}
    track = changes.get("track", "reproduced")
    fields = {
        "status": "completed",
        "benchmark": benchmark.id,
        "benchmark_version": benchmark.version,
        "dataset": benchmark.dataset,
        "gap": benchmark.gap,
        "method": name,
        "family": family,
        "options": options,
        "backbone": {"name": backbone, **size} if backbone else None,
        "seed": seed,
        "settings": {"window": 64, "steps": 400},
        "track": track,
        "data": {
            "kind": "sample" if track == "sample" else "files",
            "chips": {"train": 60, "validation": 15, "target": CHIPS},
            "split_hash": "ab",
            "manifest_hash": "cd",
        },
        "classes": benchmark.labels.names,
        "majority_class": 1,
        "source_domains": list(benchmark.source),
        "target_domains": list(benchmark.target),
        "environment": {"torch": "2.9"},
        "parameters": {"total": trainable + 3_000_000, "trainable": trainable},
        "stages": [{"name": "segment", "steps": 400, "seconds": 100.0, "trainable": trainable}],
        "seconds": {"train": 100.0 + trainable / 1e5, "evaluate": 30.0, "total": 130.0 + trainable / 1e5},
        "device": "cpu",
        "selection": {"step": 300, "value": 0.5, "trace": [[300, 0.5]]},
        "created": "2026-01-02T03:04:05+00:00",
    }
    if track == "sample":
        fields["statement"] = "Synthetic scenes, seed 1."
    fields |= changes
    return {**fields, "fingerprint": digest(fields)}


def _frame(benchmark: Benchmark, seed: int, method: str, quality: float) -> pd.DataFrame:
    """Evidence over as many places as chips; the last class is often predicted and never true."""
    classes, rows = len(benchmark.labels.names), []
    rng = np.random.default_rng(int(digest(benchmark.id, seed, method, quality)[:8], 16))
    for number in range(CHIPS):
        truth_rng = np.random.default_rng([number, classes])
        truth, domain = truth_rng.integers(300, 900, classes), benchmark.target[number % len(benchmark.target)]
        truth[-1] = 0
        luck = truth_rng.uniform(-0.1, 0.1)
        for checkpoint, better in (("selected", 0.0), ("last", -0.02), ("oracle", 0.02)):
            matrix = np.zeros((classes, classes), dtype=np.int64)
            for label, pixels in enumerate(truth):
                right = int(pixels * min(0.98, quality + better + luck + rng.uniform(-0.03, 0.03)))
                matrix[label] = rng.multinomial(pixels - right, np.full(classes, 1 / classes))
                matrix[label, label] += right
            chip = f"{benchmark.id}-{number}"
            rows.append({"chip": chip, "domain": domain, "site": f"{domain}-{number}", "checkpoint": checkpoint,
                         "matrix": matrix.reshape(-1)})  # fmt: skip
    return pd.DataFrame(rows)


def _picture(benchmark: Benchmark, seed: int) -> bytes:
    labels = np.random.default_rng(seed).integers(0, len(benchmark.labels.names), (SIDE, 2 * SIDE), dtype=np.uint8)
    picture = Image.fromarray(labels).convert("P")
    palette = [int(one.colour[start : start + 2], 16) for one in benchmark.labels.classes for start in (1, 3, 5)]
    picture.putpalette(palette + [0] * (768 - len(palette)))
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def reported_numbers() -> pd.DataFrame:
    """A paper's numbers, one of them doubtful."""
    lines = []
    for method, values in (("SpectralX", (60.0, 15.6)), (EVIL, (50.25, 11.0))):
        for (setting, benchmark), value in zip((("N->S", "mts12-n2s"), ("w/o gap", "mts12-id")), values, strict=True):
            common = {
                "dataset": "MTS12", "setting": setting, "benchmark": benchmark, "reference": f"A paper {EVIL}",
                "method": method, "backbone": "ViT-L", "trainable_params_m": 11.8, "source_table": "Table I",
            }  # fmt: skip
            doubt = "the classes average 61.0" if value == 60.0 else ""
            lines.append({**common, "metric": "mIoU", "class": "mean", "value": value, "doubt": doubt})
            lines += [
                {**common, "metric": "IoU", "class": name, "value": value + 1, "doubt": ""} for name in ("A", "B")
            ]
    return pd.DataFrame(lines)
