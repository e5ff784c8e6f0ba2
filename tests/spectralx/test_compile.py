"""One graph under torch.compile, and no wait for the device in a forward or backward pass.

Waits are looked for without a GPU: tensors are made fake, with shapes but no values, on a device that is called CUDA.
Whatever needs a value on the host (``item``, a branch on a tensor, ``nonzero``) fails there, and copies between host
and device are refused as well. PyTorch cannot run a backward pass on such a device, so that one is run on fake tensors
of the CPU, where no copy can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from spectralx import SpectralX
from spectralx.aomoa import AoMoA
from spectralx.are_adapter import AreAdapter
from spectralx.hyper_tokenizer import Attributes, HyperTokenizer, LowRankPatchPath

Make = Callable[..., SpectralX]
BANDS = 5

OPTIONS: list[dict[str, Any]] = [
    {},
    {"reading": "released"},
    {"positions": "backbone"},
    {"top_k": 4},
    {"hyper_tokenizer": False, "are_adapter": False},
]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def parts() -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    torch.manual_seed(0)
    aomoa = AoMoA(32, 64, gate_std=1.0, balance=True)
    nn.init.normal_(aomoa.up.weight)
    plain = AoMoA(32, 64, gate_std=1.0, combine="exponential")
    nn.init.normal_(plain.up.weight)
    attributes = Attributes(torch.randn(2, 64, 16), torch.randn(2, 16, 64))
    adapters = {matching: AreAdapter(32, 16, 4, matching) for matching in ("soft", "hard")}  # type: ignore[arg-type]
    tokens, images = torch.randn(2, 16, 32), torch.randn(2, BANDS, 32, 32)
    return {
        "aomoa": (aomoa, (tokens,)),
        "aomoa, plain formula": (plain, (tokens,)),
        "are-adapter, soft": (adapters["soft"], (tokens, adapters["soft"].media(attributes))),
        "are-adapter, hard": (adapters["hard"], (tokens, adapters["hard"].media(attributes))),
        "hyper tokenizer": (HyperTokenizer(BANDS, [0.5] * BANDS, 4, 8, 32), (images,)),
        "patch path": (LowRankPatchPath(BANDS, 32, 8), (images, tokens)),
    }


def flat(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, Tensor)]


def assert_same(compiled: Any, eager: Any) -> None:
    for one, other in zip(flat(compiled), flat(eager), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


SLOW = pytest.mark.slow
"""For what takes the compiler seconds: the default tests compile one of each kind."""


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("training", [pytest.param(False, marks=SLOW), True], ids=["evaluation", "training"])
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("aomoa", "are-adapter, soft", "patch path") else pytest.param(name, marks=SLOW)
        for name in parts()
    ],
)
def test_a_part_is_one_graph(name: str, training: bool) -> None:
    part, inputs = parts()[name]
    part.train(training)
    compiled = torch.compile(part, fullgraph=True, backend="aot_eager")
    outputs, gradients = [], []
    for run in (compiled, part):
        torch.manual_seed(1)
        part.zero_grad()
        output = flat(run(*inputs))
        torch.stack([leaf.square().mean() for leaf in output]).sum().backward(retain_graph=True)
        outputs.append([leaf.detach() for leaf in output])
        gradients.append({n: p.grad.clone() for n, p in part.named_parameters() if p.grad is not None})
    assert_same(*outputs)
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    assert_same(*(list(one.values()) for one in gradients))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("options", [OPTIONS[0], *(pytest.param(one, marks=SLOW) for one in OPTIONS[1:])], ids=str)
def test_segment_is_one_graph(make: Make, shake: Callable[[nn.Module], None], options: dict[str, Any]) -> None:
    model, images = make(bands=BANDS, depth=1, **options), torch.randn(2, BANDS, 32, 32)
    shake(model)
    model.eval()
    compiled = torch.compile(model.segment, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_same(compiled(images), model.segment(images))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("stage", ["reconstruct", "segment"])
def test_training_is_one_graph(
    make: Make, shake: Callable[[nn.Module], None], stage: str, options: dict[str, Any]
) -> None:
    model, images = make(bands=BANDS, depth=1, **options), torch.randn(2, BANDS, 32, 32)
    shake(model)
    run = model.segment if stage == "segment" else model.forward_reconstruction
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")  # type: ignore[arg-type]
    losses, gradients = [], []
    for function in (compiled, run):
        torch.manual_seed(1)
        model.zero_grad()
        losses.append(torch.stack([leaf.square().mean() for leaf in flat(function(images))]).sum())  # type: ignore[operator]
        losses[-1].backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert_same(*losses)
    assert len(gradients[0]) == len(gradients[1]) > 20
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["reconstruct", "segment"])
def test_inductor_gives_the_same(make: Make, shake: Callable[[nn.Module], None], stage: str) -> None:
    model, images = make(bands=BANDS, depth=1, aomoa=stage == "segment"), torch.randn(2, BANDS, 32, 32)
    shake(model)
    if stage == "segment":
        model.eval()
        with torch.no_grad():
            compiled = torch.compile(model.segment, fullgraph=True)(images)
            torch.testing.assert_close(compiled, model.segment(images), atol=1e-4, rtol=1e-4)
    else:  # its random numbers are its own, so that only the size of the loss can agree
        loss = torch.compile(model.forward_reconstruction, fullgraph=True)(images)
        loss.backward()
        assert abs(loss - model.forward_reconstruction(images)) < 0.2 * loss
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


class NoCopies(TorchDispatchMode):
    """Refuses copies between host and device, for which one of them waits."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        devices = [leaf.device.type for leaf in (*flat((args, kwargs)), *flat(result)) if leaf.dim() > 0]
        if len(set(devices)) > 1:
            raise RuntimeError(f"{function} copies between {' and '.join(sorted(set(devices)))}")
        return result


@contextmanager
def fake(module: nn.Module, device: str = "cuda") -> Iterator[None]:
    """Within, the module is fake and on a device; new tensors are fake."""
    mode = FakeTensorMode()
    with mode:
        for child in module.modules():
            for name, parameter in child._parameters.items():
                if parameter is not None:
                    value = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                    child._parameters[name] = nn.Parameter(value, parameter.requires_grad)
            for name, buffer in child._buffers.items():
                if buffer is not None:
                    child._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    with mode, NoCopies():
        yield


class Waits(nn.Module):
    """Does one thing for which the host has to wait."""

    def __init__(self, what: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        self.what(x)
        return x * self.weight


@pytest.mark.parametrize(
    "what",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: 1 if x.sum() > 0 else 2,
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.split((x > 0).sum(0).tolist()),
    ],
    ids=["item", "tolist", "branch", "nonzero", "masked index", "to the host", "from the host", "sizes"],
)
def test_waits_are_seen(what: Callable[[Tensor], object]) -> None:
    for harmful in (False, True):
        module = Waits(what if harmful else lambda x: x.sum())
        with fake(module):
            x = torch.randn(4, 3, device="cuda")
            if not harmful:
                assert module(x).shape == (4, 3)
                continue
            with pytest.raises((RuntimeError, torch._subclasses.fake_tensor.UnsupportedFakeTensorException)):
                module(x)


def loss_of(model: SpectralX, stage: str, images: Tensor) -> Tensor:
    if stage == "reconstruct":
        return model.forward_reconstruction(images)
    logits, balance = model.segment(images)
    return logits.square().mean() + balance


@pytest.mark.parametrize("stage", [pytest.param("reconstruct", marks=SLOW), "segment"])
@pytest.mark.parametrize(
    ("options", "training"),
    [
        ({}, True),
        ({"reading": "released"}, True),
        ({}, False),
        *(pytest.param(one, True, marks=SLOW) for one in OPTIONS[2:]),
    ],
    ids=str,
)
def test_no_forward_pass_waits(make: Make, options: dict[str, Any], stage: str, training: bool) -> None:
    model = make(bands=BANDS, depth=1, **options).train(training)
    with fake(model):
        assert loss_of(model, stage, torch.randn(2, BANDS, 32, 32, device="cuda")).device.type == "cuda"


@pytest.mark.parametrize("stage", [pytest.param("reconstruct", marks=SLOW), "segment"])
@pytest.mark.parametrize("options", [{}, {"reading": "released"}], ids=str)
def test_no_backward_pass_waits(make: Make, options: dict[str, Any], stage: str) -> None:
    model = make(bands=BANDS, depth=1, **options)
    with fake(model, "cpu"):
        loss_of(model, stage, torch.randn(2, BANDS, 32, 32)).backward()
        assert model.patch_path.down.weight.grad is not None


@pytest.mark.parametrize("positions", ["resolution", "mixed", "backbone"])
@pytest.mark.parametrize("stage", [pytest.param("reconstruct", marks=SLOW), "segment"])
def test_other_sizes_do_not_wait(make: Make, stage: str, positions: str) -> None:
    model = make(bands=BANDS, depth=1, positions=positions)
    with fake(model):
        assert loss_of(model, stage, torch.randn(2, BANDS, 40, 24, device="cuda")).device.type == "cuda"
