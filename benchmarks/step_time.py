"""Time of a training step, method against method, in one run: medians of interleaved rounds, as ratios to LoRA.

python benchmarks/step_time.py --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from spectral_tl_bench.methods.base import Budget, Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.training.task import segmentation_loss

METHODS = ("lora", "full", "frozen", "spectralx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    for name in METHODS:
        method = make_method(name)
        module = method.build(task).to(wanted.device).train()
        stage = method.stages(task)[-1]
        if stage.trainable is not None:
            for parameter_name, parameter in module.named_parameters():
                parameter.requires_grad_(stage.trainable(parameter_name))
        optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
        steps[name] = (module, stage.loss or segmentation_loss, optimiser)
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for number in range(wanted.rounds + 2):
        for name, (module, loss, optimiser) in steps.items():
            started = time.perf_counter()
            optimiser.zero_grad(set_to_none=True)
            loss(module, batch).backward()
            optimiser.step()
            if wanted.device != "cpu":
                torch.cuda.synchronize()
            if number >= 2:  # the first two rounds warm up
                seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds["lora"], strict=True))
        print(f"{name:10s} median {statistics.median(values) * 1000:8.1f} ms   {ratio:5.2f} x lora")


if __name__ == "__main__":
    main()
