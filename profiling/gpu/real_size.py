"""What real sizes cost on a GPU: steps of a ViT-L at 224 px, AoMoA, one cell by one and by two processes, and reading.

python profiling/gpu/real_size.py                                   (about five minutes on a data-centre GPU)
python profiling/gpu/real_size.py --device cpu --small              (a minute: whether it runs at all)
python profiling/gpu/real_size.py --parts steps aomoa --out steps.json

Weights and pixels are invented: this measures time and memory, no accuracy.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import gc
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measuring import MEBIBYTE, interleaved, paired_ratio, peak_bytes

from spectral_tl_bench.methods.base import Batch, Budget, Stage, Task
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.training.task import trained_parameters

PARTS = ("steps", "aomoa", "processes", "reading")
ARMS = (("frozen", "segment"), ("lora", "segment"), ("spectralx", "segment"), ("spectralx", "reconstruct"),
        ("full", "segment"))  # fmt: skip
TABLE = dict[str, Any]


def task_of(bands: int, window: int, backbone: str) -> Task:
    """A task of invented bands between .45 and 2.15 micrometres, with the classes of WHU-OHS."""
    return Task(
        benchmark="real-size", bands=tuple(f"B{band}" for band in range(bands)),
        wavelengths=tuple(0.45 + 1.7 * band / bands for band in range(bands)), gsd=10.0,
        classes=tuple(f"class {number}" for number in range(22)), domains=("source",), window=window,
        budget=Budget(), backbone=get_backbone(backbone),
    )  # fmt: skip


def step_of(module: nn.Module, stage: Stage, batch: Batch, half: bool) -> Callable[[], None]:
    """A training step of a stage, as often as it is called."""
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    names = trained_parameters(module, stage, declared)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)
    chosen = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(chosen, lr=1e-4, fused=True)
    loss, device = stage.loss or segmentation_loss, batch["image"].device.type

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            value = loss(module, batch)
        value.backward()
        optimiser.step()

    return run


def static_bytes(module: nn.Module) -> int:
    """Weights, and gradients and two moments of those that train."""
    parameters = [(p.numel() * p.element_size(), p.requires_grad) for p in module.parameters()]
    return sum(size * (4 if trains else 1) for size, trains in parameters)


def steps(wanted: argparse.Namespace) -> list[TABLE]:
    """Step time and memory of each method, by bands and precision; medians of interleaved rounds."""
    rows: list[TABLE] = []
    for bands in wanted.bands:
        task, device = task_of(bands, wanted.window, wanted.backbone), wanted.device
        batch = {
            "image": torch.randn(wanted.batch, bands, wanted.window, wanted.window, device=device),
            "mask": torch.randint(22, (wanted.batch, wanted.window, wanted.window), device=device),
            "domain": torch.zeros(wanted.batch, dtype=torch.long, device=device),
        }
        modules: dict[str, tuple[nn.Module, Stage]] = {}
        for name, kind in ARMS:
            torch.manual_seed(0)
            method = make_method(name)
            stage = next(stage for stage in method.stages(task) if stage.name == kind)
            modules[f"{name}, {kind}"] = method.build(task).to(device).train(), stage
        for half in (False, True):
            runs = {name: step_of(module, stage, batch, half) for name, (module, stage) in modules.items()}
            seconds = interleaved(runs, wanted.rounds, device)
            for name, values in seconds.items():
                module = modules[name][0]
                row = {
                    "bands": bands, "precision": "bf16" if half else "float32", "method": name,
                    "ms": statistics.median(values) * 1000, "x lora": paired_ratio(values, seconds["lora, segment"]),
                    "GiB static": static_bytes(module) / MEBIBYTE / 1024,
                    "GiB beside": peak_bytes(runs[name], device) / MEBIBYTE / 1024,
                    "trainable M": sum(p.numel() for p in module.parameters() if p.requires_grad) / 1e6,
                }  # fmt: skip
                rows.append(row)
                for parameter in module.parameters():
                    parameter.grad = None
            show(rows[-len(seconds) :])
        del modules, runs
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()
    return rows


def aomoa(wanted: argparse.Namespace) -> list[str]:
    """AoMoA against the bare layer, LoRA and dispatched tokens, by its own script."""
    lines: list[str] = []
    for dtype in ("float32", "bfloat16"):
        small = ["--width", "64", "--rounds", "3", "--batch", "2"]
        size = small if wanted.small else ["--batch", "8", "32", "--rounds", "20"]
        script = Path(__file__).resolve().parents[1] / "aomoa.py"
        command = [sys.executable, str(script), "--device", wanted.device, "--dtype", dtype, *size]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines += (done.stdout + done.stderr[-2000:]).splitlines()
        print(lines[-1] if done.returncode else done.stdout, flush=True)
    return lines


def cell(wanted: argparse.Namespace, data: Path, out: Path, *arguments: str, steps: int = 60) -> TABLE:
    """One cell by the command; gives seconds and what its record says."""
    sizes = ["--steps", "4" if wanted.small else str(steps), "--validations", "1"]
    command = [
        str(Path(sys.executable).with_name("stbench")), "run", "-m", "lora", "-b", "whuohs-s2t", "--allow-partial",
        "--data-root", str(data), "--out", str(out), "--backbone", wanted.backbone, "--window", str(wanted.window),
        "--batch-size", str(wanted.batch), "--stride", str(wanted.window), *sizes, *arguments,
    ]  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row: TABLE = {"arguments": " ".join(arguments), "seconds": time.monotonic() - started, "exit": done.returncode}
    for path in out.glob("*/*/*/record.json"):
        record = json.loads(path.read_text())
        row |= {"miou": (record["scores"] or {}).get("selected", {}).get("miou"), "device": record.get("device"),
                "train s": (record.get("seconds") or {}).get("train"), "environment": record["environment"],
                "measured": [stage.get("measured") for stage in record["stages"]],
                "peak MB": record.get("peak_memory_mb")}  # fmt: skip
    if done.returncode:
        row["output"] = (done.stdout + done.stderr)[-1500:]
    print(json.dumps({key: value for key, value in row.items() if key != "environment"}), flush=True)
    return row


def tree(wanted: argparse.Namespace, folder: Path) -> Path:
    """A WHU-OHS tree of invented scenes with chips of real size (512 px, 32 bands, 16.8 MB)."""
    from spectral_tl_bench.sample import write_whu_ohs

    started = time.monotonic()
    chip = 64 if wanted.small else 512
    write = functools.partial(write_whu_ohs, folder / "WHU-OHS", chip=chip, chips_per_city=2)
    cities = [f"{side}{number}" for side in "ST" for number in range(1, 9)]
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for job in [pool.submit(write, cities=(city,)) for city in cities]:
            job.result()
    print(f"wrote chips of {chip} px in {time.monotonic() - started:.0f} s", flush=True)
    return folder


def processes(wanted: argparse.Namespace, data: Path, out: Path) -> list[TABLE]:
    """One cell by one process, and by two that share its batches and its chips."""
    kind = "cpu" if wanted.device == "cpu" else "gpu"
    number = torch.cuda.device_count() if kind == "gpu" else 2
    accelerator = kind if number > 1 else "cpu"  # two processes want two GPUs
    rest = [] if accelerator == "gpu" else ["--backbone-size", "depth=2", "--threads", "4"]
    few = 60 if accelerator == "gpu" else 4
    return [
        cell(
            wanted,
            data,
            out / f"devices-{devices}",
            "--accelerator",
            accelerator,
            "--devices",
            devices,
            *rest,
            steps=few,
        )
        for devices in ("1", "2")
    ]


def reading(wanted: argparse.Namespace, data: Path, out: Path) -> list[TABLE]:
    """How long a training step waits for pixels, by reader processes and precision."""
    kind = "cpu" if wanted.device == "cpu" else "gpu"
    return [
        cell(wanted, data, out / f"{precision}-{workers}", "--accelerator", kind, "--precision", precision,
             "--workers", workers)
        for precision, workers in (("bf16-mixed", "0"), ("bf16-mixed", "4"), ("bf16-mixed", "12"))
    ]  # fmt: skip


def show(rows: list[TABLE]) -> None:
    """Rows of a table as lines."""
    for row in rows:
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in row.items()),
              flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="vit-large")
    parser.add_argument("--window", type=int, default=224)
    parser.add_argument("--bands", type=int, nargs="+", default=[13, 32])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--small", action="store_true", help="small sizes, to see whether it runs")
    parser.add_argument("--out", type=Path, help="all numbers as JSON")
    wanted = parser.parse_args()
    if wanted.small:
        wanted.backbone, wanted.window, wanted.batch, wanted.rounds = "vit-tiny", 32, 2, 2
    name = torch.cuda.get_device_name() if wanted.device != "cpu" else "the CPU"
    found: TABLE = {"device": name, "torch": torch.__version__, "cores": os.cpu_count(), **vars(wanted)}
    print(f"{wanted.backbone}, {wanted.window} px, batches of {wanted.batch}, on {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = tree(wanted, place / "data") if {"processes", "reading"} & {*wanted.parts} else place
        for part in wanted.parts:
            started = time.monotonic()
            if part in ("steps", "aomoa"):
                found[part] = {"steps": steps, "aomoa": aomoa}[part](wanted)
            else:
                found[part] = {"processes": processes, "reading": reading}[part](wanted, data, place / part)
            print(f"-- {part}: {time.monotonic() - started:.0f} s", flush=True)
            if wanted.out is not None:
                wanted.out.write_text(json.dumps(found, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
