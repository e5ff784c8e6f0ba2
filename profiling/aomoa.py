"""AoMoA against the layer alone, LoRA, and the same experts with dispatched tokens: forward and backward, in one run.

python profiling/aomoa.py --threads 2

``only ...`` leaves the frozen linear layer out. ``only the shared maps`` is what both forms of the experts have in
common, the maps down and up with their norms: what a form costs beyond that is its routing and its experts.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import statistics
from collections.abc import Callable

import torch
from dispatch import DispatchedAdapters
from measuring import MEBIBYTE, interleaved, paired_ratio, peak_bytes
from torch import Tensor, nn
from torch.nn import functional

from spectralx.aomoa import AoMoA

TOLERANCE = 2e-5  # on a GPU one of six million outputs is 1.06e-5 apart
ROUTED = ("only AoMoA", "only dispatched, by half", "only dispatched, jointly")
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Lora(nn.Module):
    """A low-rank update beside a linear layer (Hu et al., ICLR 2022)."""

    def __init__(self, inputs: int, outputs: int, rank: int = 16) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """What has to be added to the layer's output."""
        return self.up(self.down(x)), None


class SharedMaps(nn.Module):
    """An AoMoA layer without routing and experts."""

    def __init__(self, layer: AoMoA) -> None:
        super().__init__()
        self.norm_in, self.down, self.norm_down = layer.norm_in, layer.down, layer.norm_down
        self.up, self.scale = layer.up, layer.scale

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """What would have to be added to the layer's output if experts did nothing."""
        z = self.norm_down(self.down(self.norm_in(x.unflatten(-1, (2, -1)))))
        halves = zip(z.unbind(-2), self.scale.chunk(2), strict=True)
        return torch.cat([functional.linear(half, scale[:, None] * self.up.weight) for half, scale in halves], -1), None


def make_layer(inputs: int, outputs: int, experts: int, top_k: int) -> AoMoA:
    """An AoMoA layer as it is in the middle of training: its output is not zero and its gates do not tie."""
    layer = AoMoA(inputs, outputs, experts=experts, top_k=top_k, gate_std=1.0, balance=True)
    nn.init.normal_(layer.up.weight, std=0.02)
    nn.init.normal_(layer.gate.noise, std=0.02)
    return layer


def assert_equal(layer: AoMoA, dispatched: DispatchedAdapters, x: Tensor) -> None:
    """Without gate noise both forms must agree, or their times mean nothing."""
    for module in (layer, dispatched):
        module.eval()
    torch.testing.assert_close(dispatched(x)[0], layer(x)[0], atol=TOLERANCE, rtol=TOLERANCE)
    for module in (layer, dispatched):
        module.train()


def one_pass(
    linear: nn.Module | None, beside: nn.Module | None, x: Tensor, gradient: Tensor, dtype: torch.dtype | None
) -> Callable[[], None]:
    """Forward and backward through a frozen layer, what stands beside it, or both."""

    def run() -> None:
        x.grad = None
        if beside is not None:
            beside.zero_grad(set_to_none=True)
        context = torch.autocast(x.device.type, dtype) if dtype else contextlib.nullcontext()
        with context:
            y = linear(x) if linear is not None else None
            extra = None
            if beside is not None:
                added, extra = beside(x)
                y = added if y is None else y + added
        ends = [y] if extra is None else [y, extra]
        torch.autograd.backward(ends, [gradient.to(end.dtype) if end is y else torch.ones_like(end) for end in ends])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024, help="token width; the MLP is four times as wide")
    parser.add_argument("--tokens", type=int, default=197)
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="other than float32: by autocast")
    wanted = parser.parse_args()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False  # for the check below
    dtype, device = DTYPES[wanted.dtype], wanted.device
    print(f"{wanted.dtype} on {device}, {torch.get_num_threads()} threads, median of {wanted.rounds} rounds")
    for inputs, outputs in ((wanted.width, 4 * wanted.width), (4 * wanted.width, wanted.width)):
        for batch in wanted.batch:
            x = torch.randn(batch, wanted.tokens, inputs, device=device, requires_grad=True)
            gradient = torch.randn(batch, wanted.tokens, outputs, device=device)
            linear = nn.Linear(inputs, outputs).to(device).requires_grad_(False)
            layer = make_layer(inputs, outputs, wanted.experts, wanted.top_k).to(device)
            by_half = DispatchedAdapters(layer).to(device)
            jointly = DispatchedAdapters(copy.deepcopy(layer), joint=True).to(device)
            for dispatched in (by_half, jointly):
                assert_equal(layer, dispatched, x)
            beside = {
                "LoRA r=16": Lora(inputs, outputs).to(device),
                "AoMoA": layer,
                "dispatched, by half": by_half,
                "dispatched, jointly": jointly,
            }
            arms = {"linear alone": one_pass(linear, None, x, gradient, dtype)}
            arms |= {f"linear + {name}": one_pass(linear, part, x, gradient, dtype) for name, part in beside.items()}
            beside["the shared maps"] = SharedMaps(copy.deepcopy(layer))
            arms |= {f"only {name}": one_pass(None, part, x, gradient, dtype) for name, part in beside.items()}
            seconds = interleaved(arms, wanted.rounds, device)
            print(f"\n{inputs} -> {outputs}, batch {batch}, {wanted.tokens} tokens, forward + backward")
            print_table(seconds, {name: peak_bytes(run, device) for name, run in arms.items()})


def print_table(seconds: dict[str, list[float]], peaks: dict[str, int]) -> None:
    """Medians, and the fastest rounds, which other work on the machine disturbs least; ratios are within a round."""
    print(f"{'':30s} {'median':>9s} {'min ms':>9s} {'x linear':>9s} {'x AoMoA':>9s} {'peak MiB':>9s}")
    for name, values in seconds.items():
        own = "only AoMoA" if name.startswith("only") else "linear + AoMoA"
        print(
            f"{name:30s} {statistics.median(values) * 1000:9.2f} {min(values) * 1000:9.2f} "
            f"{paired_ratio(values, seconds['linear alone']):9.2f} {paired_ratio(values, seconds[own]):9.2f} "
            f"{peaks[name] / MEBIBYTE:9.1f}"
        )
    shared = min(seconds["only the shared maps"])
    rest = {name: (min(values) - shared) * 1000 for name, values in seconds.items() if name in ROUTED}
    first, *others = ROUTED
    for name in others:
        print(f"beyond the shared maps, fastest rounds: {name} {rest[name]:.2f} ms, AoMoA {rest[first]:.2f} ms")


if __name__ == "__main__":
    main()
