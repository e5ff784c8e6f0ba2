"""Time and memory of a training step, method against method, in one run: medians of interleaved rounds, as ratios.

python profiling/step_time.py --threads 2
python profiling/step_time.py --backbone vit-large --window 224 --batch 2 --rounds 3
python profiling/step_time.py --stage reconstruct --methods spectralx spectralx@released
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from measuring import MEBIBYTE, interleaved, paired_ratio, peak_bytes
from torch import nn

from spectral_tl_bench.methods.base import Batch, Budget, Stage, Task
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.training.task import trained_parameters

METHODS = ("lora", "full", "frozen", "spectralx")


def one_step(module: nn.Module, stage: Stage, batch: Batch) -> Callable[[], None]:
    """A training step of a stage, as often as it is called."""
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    names = trained_parameters(module, stage, declared)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
    loss = stage.loss or segmentation_loss

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(module, batch).backward()
        optimiser.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="ratios are to the first")
    parser.add_argument("--stage", choices=("segment", "reconstruct"), default="segment")
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--bands", type=int, default=13)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's default")
    parser.add_argument("--device", default="cpu")
    wanted = parser.parse_args()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    task = Task(
        benchmark="step-time",
        bands=tuple(f"B{band}" for band in range(wanted.bands)),
        wavelengths=tuple(0.45 + 1.7 * band / wanted.bands for band in range(wanted.bands)),
        gsd=10.0,
        classes=tuple(f"class {number}" for number in range(wanted.classes)),
        domains=("source",),
        window=wanted.window,
        budget=Budget(),
        backbone=get_backbone(wanted.backbone),
    )
    batch = {
        "image": torch.randn(wanted.batch, wanted.bands, wanted.window, wanted.window, device=wanted.device),
        "mask": torch.randint(wanted.classes, (wanted.batch, wanted.window, wanted.window), device=wanted.device),
        "domain": torch.zeros(wanted.batch, dtype=torch.long, device=wanted.device),
    }
    steps = {}
    for name in wanted.methods:
        method = make_method(name)
        stage = next((stage for stage in method.stages(task) if stage.name == wanted.stage), None)
        if stage is None:
            print(f"{name} has no stage {wanted.stage}")
            continue
        steps[name] = one_step(method.build(task).to(wanted.device).train(), stage, batch)
    if not steps:
        parser.error(f"no method has a stage {wanted.stage}")
    seconds = interleaved(steps, wanted.rounds, wanted.device)
    first = next(iter(steps))
    print(f"{wanted.stage}, {wanted.backbone}, {wanted.window} px, batch {wanted.batch}, on {wanted.device}")
    for name, values in seconds.items():
        print(
            f"{name:20s} median {statistics.median(values) * 1000:8.1f} ms   "
            f"{paired_ratio(values, seconds[first]):5.2f} x {first}   "
            f"peak {peak_bytes(steps[name], wanted.device) / MEBIBYTE:8.1f} MiB beside weights, gradients and optimiser"
        )


if __name__ == "__main__":
    main()
