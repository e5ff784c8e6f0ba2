"""``evaluate`` at other sizes than the reference cases, against formulas written down here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spectralx import positions
from spectralx.released import evaluate
from spectralx.released.parts import hyper_tokenizer

torch.set_num_threads(1)

State = dict[str, Tensor]


@dataclass
class Case:
    name: str
    state_dict: State
    inputs: State
    config: dict = field(default_factory=dict)


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = {key: torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes.items()}
    for key, value in state.items():
        if key.endswith("running_var"):
            value.abs_().add_(0.5)
        elif "norm" in key and key.endswith("weight"):
            value.add_(1)
    return state


def norm(x: Tensor, state: State, name: str) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def batch_norm(x: Tensor, state: State, name: str, train: bool) -> Tensor:
    dims = [0, *range(2, x.dim())]
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if train:
        mean, variance = x.mean(dims), x.var(dims, correction=0)
    scaled = (x - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)


def batch_norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}


def cross_shapes(name: str, media: int, latents: int) -> dict[str, tuple[int, ...]]:
    inner = media // 2
    return {
        **{f"{name}.norm_media.{leaf}": (media,) for leaf in ("weight", "bias")},
        **{f"{name}.norm_latents.{leaf}": (latents,) for leaf in ("weight", "bias")},
        f"{name}.to_q.weight": (inner, latents),
        f"{name}.to_kv.weight": (2 * inner, media),
        f"{name}.to_out.weight": (latents, inner),
    }


def cross_attention(latents: Tensor, media: Tensor, state: State, name: str) -> tuple[Tensor, Tensor]:
    q = norm(latents, state, f"{name}.norm_latents") @ state[f"{name}.to_q.weight"].T
    k, v = (norm(media, state, f"{name}.norm_media") @ state[f"{name}.to_kv.weight"].T).chunk(2, -1)
    attention = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return attention, attention @ v @ state[f"{name}.to_out.weight"].T


def hyper_shapes(bands: int, stem: tuple[int, ...], tokens: int, width: int) -> dict[str, tuple[int, ...]]:
    attributes, places, half = stem[-1], 4 * tokens, width // 2
    shapes: dict[str, tuple[int, ...]] = {"spa_query": (tokens, half), "spe_query": (tokens, half)}

    def conv(name: str, outputs: int, inputs: int, side: int) -> None:
        shapes[f"downsample_module.{name}.weight"] = (outputs, inputs, side, side)
        shapes[f"downsample_module.{name}.bias"] = (outputs,)

    conv("conv1", stem[0], bands, 1)
    for step, (one, other) in enumerate(pairwise(stem[:-1])):
        for module, outputs, side in ((2 * step + 1, one, 3), (2 * step + 2, other, 2)):
            conv(f"module{module}.0", outputs, one, side)
            shapes |= batch_norm_shapes(f"downsample_module.module{module}.1", outputs)
    conv("conv2", attributes, stem[-2], 3)
    for name, size in (("spa", attributes), ("spe", places)):
        block = f"{name}_semantic_module.0"
        shapes |= {f"{block}.norm{i}.{leaf}": (size,) for i in (1, 2) for leaf in ("weight", "bias")}
        layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
        for layer, (outputs, inputs) in layers.items():
            shapes[f"{block}.{layer}.weight"] = (outputs * size, inputs * size)
            shapes[f"{block}.{layer}.bias"] = (outputs * size,)
        shapes |= cross_shapes(f"{name}_match_attn", size, half)
    shapes |= {"match_ff.0.weight": (width,), "match_ff.0.bias": (width,)}
    return shapes | {"match_ff.1.weight": (4 * width, width), "match_ff.3.weight": (width, 4 * width)}


def block(x: Tensor, state: State, name: str) -> Tensor:
    """Pre-LN transformer block with 8 heads."""
    batch, length, width = x.shape
    qkv = F.linear(norm(x, state, f"{name}.norm1"), state[f"{name}.attn.qkv.weight"], state[f"{name}.attn.qkv.bias"])
    q, k, v = (part.view(batch, length, 8, -1).transpose(1, 2) for part in qkv.chunk(3, -1))
    mixed = (q @ k.transpose(-1, -2) / math.sqrt(width // 8)).softmax(-1) @ v
    mixed = mixed.transpose(1, 2).reshape(x.shape)
    x = x + F.linear(mixed, state[f"{name}.attn.proj.weight"], state[f"{name}.attn.proj.bias"])
    hidden = F.linear(norm(x, state, f"{name}.norm2"), state[f"{name}.mlp.fc1.weight"], state[f"{name}.mlp.fc1.bias"])
    return x + F.linear(F.gelu(hidden), state[f"{name}.mlp.fc2.weight"], state[f"{name}.mlp.fc2.bias"])


def hyper(x: Tensor, state: State, wavelengths: list[float], train: bool) -> State:
    """HyperT for an attribute map of at most 14 x 14, which is a single window."""

    def conv(z: Tensor, name: str, **options: int) -> Tensor:
        name = f"downsample_module.{name}"
        return F.conv2d(z, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    z, module = conv(x, "conv1"), 1
    while f"downsample_module.module{module}.0.weight" in state:
        inner = conv(z, f"module{module}.0", padding=1)
        z = z + F.gelu(batch_norm(inner, state, f"downsample_module.module{module}.1", train))
        z = conv(z, f"module{module + 1}.0", stride=2)
        z = batch_norm(z, state, f"downsample_module.module{module + 1}.1", train)
        module += 2
    z = conv(z, "conv2", stride=2, padding=1)
    attributes, side = z.shape[1], z.shape[-1]
    spa = block(z.flatten(2).transpose(1, 2), state, "spa_semantic_module.0")
    spe = block(z.flatten(2), state, "spe_semantic_module.0")

    def sincos(values: Tensor, width: int) -> Tensor:
        d = torch.arange(width // 2).double()
        angles = values.double()[:, None] * 10000 ** (-2 * d / width)
        return torch.cat([angles.sin(), angles.cos()], 1).float()

    cells = torch.arange(side * side)
    places = [sincos(axis * 10, attributes // 2) for axis in (cells % side, cells // side)]
    spa = spa + torch.cat(places, 1)
    table = sincos(torch.tensor(wavelengths) * 1000, side * side)
    at = torch.linspace(0, len(wavelengths) - 1, attributes)
    low = at.floor().long().clamp(max=max(0, len(wavelengths) - 2))
    share = (at - low)[:, None]
    spe = spe + (1 - share) * table[low] + share * table[(low + 1).clamp(max=len(wavelengths) - 1)]
    tokens = []
    for name, media in (("spa", spa), ("spe", spe)):
        query = state[f"{name}_query"]
        tokens.append(cross_attention(query.expand(len(x), -1, -1), media, state, f"{name}_match_attn")[1] + query)
    joined = norm(torch.cat(tokens, -1), state, "match_ff.0")
    out = F.gelu(joined @ state["match_ff.1.weight"].T) @ state["match_ff.3.weight"].T
    return {"tokens": out, "spa_fea": spa, "spe_fea": spe}


HYPER = [
    pytest.param(3, (16, 32), 16, 64, 16, 3, id="patch 4, RGB"),
    pytest.param(24, (8, 16, 32), 16, 48, 32, 24, id="24 bands"),
    pytest.param(5, (8, 16, 32, 64), 16, 32, 64, 32, id="32 wavelengths for 5 bands"),
    pytest.param(2, (8, 16, 32), 4, 32, 16, 1, id="one wavelength"),
]


@pytest.mark.parametrize("name", ["hypert_x", "hypert_x_train"])
@pytest.mark.parametrize(("bands", "stem", "tokens", "width", "size", "count"), HYPER)
def test_hyper_tokenizer(name, bands, stem, tokens, width, size, count):
    state = draw(hyper_shapes(bands, stem, tokens, width))
    wavelengths = [0.4 + 1.7 * i / count for i in range(count)]
    x = torch.randn(2, bands, size, size, generator=torch.Generator().manual_seed(1))
    outputs = evaluate(Case(name, state, {"x": x}, {"in_channels": bands, "wavelength": wavelengths}))
    for key, value in hyper(x, state, wavelengths, "train" in name).items():
        torch.testing.assert_close(outputs[key], value, rtol=1e-3, atol=2e-4)


def test_training_mode_needs_the_word():
    state = draw(hyper_shapes(3, (8, 16, 32), 4, 16))
    x, config = torch.randn(2, 3, 16, 16), {"wavelength": [0.5, 0.6, 0.7]}
    plain, trained, strained = (
        evaluate(Case(f"hypert_{name}", state, {"x": x}, config))["tokens"] for name in ("a", "train_a", "strained")
    )
    assert torch.equal(plain, strained) and not torch.allclose(plain, trained)


@pytest.mark.parametrize("prefix", ["proj.", "", "embed.hyper."])
@pytest.mark.parametrize("beside", ["", "low_rank."])
def test_hyper_tokenizer_in_place_of_the_patch_convolution(prefix, beside):
    inner = draw(hyper_shapes(3, (8, 16, 32), 4, 32))
    path = draw(
        {"down.weight": (5, 3, 4, 4), "down.bias": (5,), "up.weight": (32, 5, 2, 2), "up.bias": (32,), "scaler": (32,)}
    )
    state = {prefix + key: value for key, value in inner.items()} | {beside + key: v for key, v in path.items()}
    state["grid_of_constants"] = torch.zeros(3, 3)
    x, wavelengths = torch.randn(2, 3, 16, 16), [0.4, 0.5, 0.6, 2.0]
    case = Case("hypert_lowrank_conv_3", state, {"x": x}, {"wavelength": wavelengths})
    outputs = evaluate(case)
    assert set(outputs) == {"out", "spa_fea", "spe_fea"}
    expected = hyper(x, inner, wavelengths, train=False)
    grid = expected["tokens"].transpose(1, 2).reshape(2, 32, 2, 2)
    low = F.conv2d(x, path["down.weight"], path["down.bias"], stride=4)
    low = F.conv2d(low, path["up.weight"], path["up.bias"], stride=2)
    torch.testing.assert_close(outputs["out"], (grid + low) * path["scaler"].view(-1, 1, 1), rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(outputs["spe_fea"], expected["spe_fea"], rtol=1e-3, atol=2e-4)
    for key in (prefix + "match_ff.3.weight", prefix + "spa_query", beside + "up.bias", beside + "scaler"):
        with pytest.raises(ValueError):
            case.state_dict = {name: value for name, value in state.items() if name != key}
            if key.endswith("up.bias"):  # a convolution without bias is possible, but half a scaler is not
                case.state_dict[beside + "scaler"] = torch.ones(31)
            evaluate(case)


def test_images_that_do_not_fit_the_queries_are_refused():
    state = draw(hyper_shapes(3, (8, 16), 4, 16))
    with pytest.raises(ValueError, match="4 tokens"):
        hyper_tokenizer(state, (8, 12), [0.5])


def aomoa_state(inputs: int, outputs: int, inner: int, hidden: int, experts: int, seed: int = 3) -> State:
    half = inputs // 2
    shapes = {
        "linear.weight": (outputs, inputs),
        "linear.bias": (outputs,),
        "scaler": (outputs,),
        "blocks_MoA.norm1.weight": (half,),
        "blocks_MoA.norm1.bias": (half,),
        "blocks_MoA.dimReduction.weight": (inner, half),
        "blocks_MoA.norm2.weight": (inner,),
        "blocks_MoA.norm2.bias": (inner,),
        "blocks_MoA.dimIncrease.weight": (outputs // 2, inner),
        "blocks_MoA.MoA.w_gate": (2, inner, experts),
        "blocks_MoA.MoA.w_noise": (2, inner, experts),
        "blocks_MoA.MoA.mean": (1,),
        "blocks_MoA.MoA.std": (1,),
    }
    for e in range(experts):
        stem = f"blocks_MoA.MoA.experts.{e}"
        shapes |= {f"{stem}.fc1.weight": (hidden, inner), f"{stem}.fc1.bias": (hidden,)}
        shapes |= {f"{stem}.fc2.weight": (inner, hidden), f"{stem}.fc2.bias": (inner,)}
    return draw(shapes, seed)


def naive_aomoa(x: Tensor, state: State, k: int = 2) -> State:
    """One token after the other, with the exponentials written out."""
    outputs: State = {}
    raised = []
    experts = state["blocks_MoA.MoA.w_gate"].shape[-1]
    for half, (name, part) in enumerate(zip(("spa", "spe"), x.chunk(2, -1), strict=True)):
        z = norm(part, state, "blocks_MoA.norm1") @ state["blocks_MoA.dimReduction.weight"].T
        z = norm(z, state, "blocks_MoA.norm2").flatten(0, 1)
        all_gates, combined = [], []
        for token in z:
            logits = token @ state["blocks_MoA.MoA.w_gate"][half]
            values, chosen = logits.topk(min(k + 1, experts))
            gates = torch.zeros(experts)
            gates[chosen[:k]] = values[:k].softmax(0)
            total = torch.zeros(z.shape[-1])
            for e in range(experts):
                stem = f"blocks_MoA.MoA.experts.{e}"
                hidden = F.relu(F.linear(token, state[f"{stem}.fc1.weight"], state[f"{stem}.fc1.bias"]))
                if gates[e] > 1e-4:
                    out = F.linear(hidden, state[f"{stem}.fc2.weight"], state[f"{stem}.fc2.bias"])
                    total = total + gates[e] * out.exp()
            total[total == 0] = 2.220446049250313e-16
            all_gates.append(gates)
            combined.append(total.log())
        outputs[f"gates_{name}"], outputs[f"moe_{name}"] = torch.stack(all_gates), torch.stack(combined)
        raised.append(outputs[f"moe_{name}"] @ state["blocks_MoA.dimIncrease.weight"].T)
        outputs[f"aomoa_{name}"] = raised[-1].view(*x.shape[:2], -1)
    base = F.linear(x, state["linear.weight"], state["linear.bias"])
    joined = torch.cat([outputs["aomoa_spa"], outputs["aomoa_spe"]], -1)
    return outputs | {"out": base + state["scaler"] * joined}


@pytest.mark.parametrize(
    ("inputs", "outputs", "inner", "hidden", "experts"),
    [(32, 128, 4, 2, 4), (64, 32, 12, 5, 4), (48, 48, 6, 3, 2), (32, 64, 5, 7, 7), (16, 16, 9, 1, 12)],
)
@pytest.mark.parametrize("gate", ["random", "zero"])
def test_aomoa(inputs, outputs, inner, hidden, experts, gate):
    state = aomoa_state(inputs, outputs, inner, hidden, experts)
    if gate == "zero":
        state["blocks_MoA.MoA.w_gate"].zero_()
    else:
        state["blocks_MoA.MoA.w_gate"].mul_(5)
    x = torch.randn(2, 5, inputs, generator=torch.Generator().manual_seed(5))
    got, expected = evaluate(Case("aomoa_other", state, {"x": x})), naive_aomoa(x, state)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-4, atol=1e-5)
    assert torch.equal(got["load_spa"], (expected["gates_spa"] > 0).sum(0))


def test_a_zero_gate_takes_the_experts_that_topk_takes():
    state = aomoa_state(32, 32, 4, 2, 4)
    state["blocks_MoA.MoA.w_gate"].zero_()
    gates = evaluate(Case("aomoa_tie", state, {"x": torch.randn(1, 6, 32)}))["gates_spe"]
    chosen = torch.zeros(1, 4).topk(3, dim=1).indices[0, :2]
    expected = torch.zeros(4).index_fill(0, chosen, 0.5)
    assert torch.equal(gates, expected.expand(6, 4))


def test_an_expert_that_is_missing_is_named():
    state = aomoa_state(32, 32, 4, 2, 4)
    for key in [key for key in state if ".experts.2." in key]:
        del state[key]
    with pytest.raises(ValueError, match=r"numbers \[2\] are missing"):
        evaluate(Case("aomoa_gap", state, {"x": torch.randn(1, 6, 32)}))
    del state["scaler"]
    with pytest.raises(ValueError):
        evaluate(Case("aomoa_gap", state, {"x": torch.randn(1, 6, 32)}))


def are_state(width: int, attributes: int, grid: int) -> State:
    half, patches, places = width // 2, grid**2, 4 * grid**2
    inner = half // 2
    shapes = {
        "scale": (),
        "norm.weight": (half,),
        "norm.bias": (half,),
        **cross_shapes("spa_match_attn", attributes, half),
        **cross_shapes("spe_match_attn", places, half),
        "spa_mlp.weight": (patches, places),
        "spa_mlp.bias": (patches,),
        "spe_mlp.weight": (patches, attributes),
        "spe_mlp.bias": (patches,),
        "refine_spa.0.weight": (inner, half, 3, 3),
        **batch_norm_shapes("refine_spa.1", inner),
        "refine_spa.3.weight": (inner, inner, 3, 3),
        **batch_norm_shapes("refine_spa.4", inner),
        "refine_spe.0.weight": (patches, attributes, 1),
        **batch_norm_shapes("refine_spe.1", patches),
    }
    return draw(shapes, seed=8)


def naive_are(tokens: Tensor, spa_fea: Tensor, spe_fea: Tensor, state: State, train: bool) -> Tensor:
    factors = []
    for name, half, media in zip(("spa", "spe"), tokens.chunk(2, -1), (spa_fea, spe_fea), strict=True):
        attention, _ = cross_attention(half, media, state, f"{name}_match_attn")
        best = attention.argmax(1)
        found = torch.stack([rows[index] for rows, index in zip(half, best, strict=True)])
        found = norm(found, state, "norm")
        if name == "spa":
            side = math.isqrt(found.shape[1])
            z = F.conv2d(found.transpose(1, 2).unflatten(2, (side, side)), state["refine_spa.0.weight"], None, 2, 1)
            z = F.relu(batch_norm(z, state, "refine_spa.1", train))
            z = F.conv2d(z, state["refine_spa.3.weight"], None, 1, 1)
            z = F.relu(batch_norm(z, state, "refine_spa.4", train)).mean(1).flatten(1)
        else:
            z = F.conv1d(found, state["refine_spe.0.weight"])
            z = F.relu(batch_norm(z, state, "refine_spe.1", train)).mean(2)
        factors.append(z[..., None] * half)
    return torch.cat(factors, -1)


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("name", ["are_adapter_eval", "are_adapter_train"])
@pytest.mark.parametrize(("width", "attributes", "grid"), [(32, 12, 2), (48, 30, 3), (16, 64, 4)])
def test_are_adapter(class_token, name, width, attributes, grid):
    state = are_state(width, attributes, grid)
    feats = torch.randn(3, grid**2 + class_token, width)
    spa_fea, spe_fea = torch.randn(3, 4 * grid**2, attributes), torch.randn(3, attributes, 4 * grid**2)
    inputs = {"feats": feats, "spa_fea": spa_fea, "spe_fea": spe_fea}
    got = evaluate(Case(name, state, inputs))
    patches = feats[:, int(class_token) :]
    delta = naive_are(patches, spa_fea, spe_fea, state, train="train" in name)
    torch.testing.assert_close(got["delta"], delta, rtol=1e-3, atol=1e-4)
    refined = patches + state["scale"] * delta
    torch.testing.assert_close(got["out_no_cls"], refined, rtol=1e-3, atol=1e-4)
    assert torch.equal(got["out"][:, : int(class_token)], feats[:, : int(class_token)])
    assert torch.equal(got["out"][:, int(class_token) :], got["out_no_cls"])


def test_unknown_parts_are_named():
    with pytest.raises(KeyError, match="something_else"):
        evaluate(Case("something_else", {}, {}))


def test_wavelengths_have_to_be_given():
    state = draw(hyper_shapes(3, (8, 16), 4, 16))
    with pytest.raises(ValueError, match="wavelength"):
        evaluate(Case("hypert_3", state, {"x": torch.randn(1, 3, 8, 8)}))
    assert positions.spectral(16, [0.5], 16).shape == (16, 16)
