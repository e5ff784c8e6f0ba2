"""Methods through peft: where they act, that they start from the backbone as it is, and that they can be merged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import SIZES, make_request, make_task, make_tree
from torch import nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.inspect.describe import count_parts
from spectral_tl_bench.methods.adalora import AdaLora, orthogonality
from spectral_tl_bench.methods.any_tuner import ELSEWHERE, OURS, UNFIT, tuners
from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.methods.baselines import BitFit, Frozen, LinearProbe
from spectral_tl_bench.methods.peft_methods import Dora, FourierFt, Ia3, LnTuning, Lora, Oft, Vera
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.methods.tuners import TunerMethod, merge
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.task import StageTask

METHODS = [
    Lora(), Dora(), AdaLora(), Ia3(), Vera(), Oft(), Oft(approximate=True), FourierFt(), LnTuning(),
    make_method("peft"),
]  # fmt: skip
LAYERS = {
    "attention": {"attn.qkv", "attn.proj"},
    "mlp": {"mlp.fc1", "mlp.fc2"},
    "all": {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
}
OTHERS = {
    Ia3: {"attention": {"attn.qkv"}, "mlp": {"mlp.fc2"}, "all": {"attn.qkv", "mlp.fc2"}},
    LnTuning: {"attention": {"norm1"}, "mlp": {"norm2"}, "all": {"norm1", "norm2"}},
}
"""Methods that adapt other layers."""


def build(method: Method, **more: int) -> nn.Module:
    torch.manual_seed(0)
    return method.build(make_task(**more)).eval()


def stir(module: nn.Module) -> nn.Module:
    """Trained weights, roughly."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.03 * torch.randn_like(parameter))
    return module


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 32, 32, generator=torch.Generator().manual_seed(2))


def adapted_layers(module: nn.Module) -> set[str]:
    """Names of the layers that peft has wrapped."""
    return {name.removesuffix(".base_layer") for name, _ in module.named_modules() if name.endswith(".base_layer")}


@pytest.mark.parametrize("where", ["all", "attention", "mlp"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_adapter_is_where_it_should_be_and_alone_trains(method: TunerMethod, where: str) -> None:
    kind = type(method)
    module = build(kind(**{**method.model_dump(), "where": where, "train_patch_embed": False}))
    wanted = OTHERS.get(kind, {}).get(where, LAYERS[where])
    assert adapted_layers(module) == {
        f"backbone.blocks.{block}.{layer}" for block in range(SIZES["depth"]) for layer in wanted
    }
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    in_backbone = {name for name in trained if not name.startswith("decoder.")}
    norms = {name for name in in_backbone if re.search(r"\.norm[12]\.(weight|bias)$", name)}
    assert len(norms) == (8 if getattr(method, "train_norms", False) else 0)
    assert all(any(f".{layer}." in name for layer in wanted) for name in in_backbone - norms)
    assert not any("base_layer" in name for name in trained)
    assert trained >= {name for name, _ in module.named_parameters() if name.startswith("decoder.")}


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_untrained_it_leaves_the_backbone_as_it_is_and_trained_it_does_not(method: TunerMethod) -> None:
    plain, module = build(Frozen()), build(method)
    with torch.no_grad():
        for one, other in zip(plain.features(images()), module.features(images()), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and any(f"{layer}." in name for layer in adapted_layers(module)):
                parameter.add_(0.05)
        assert not torch.allclose(module.features(images())[-1], plain.features(images())[-1], atol=1e-3)


def test_what_starts_otherwise_says_so() -> None:
    plain, module = build(Frozen()), build(FourierFt(random_start=True))
    assert not torch.allclose(plain.features(images())[-1], module.features(images())[-1], atol=1e-3)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_merged_it_computes_the_same_with_plain_layers(method: TunerMethod) -> None:
    module, shown = stir(build(method)).double(), images().double()
    with torch.no_grad():
        expected, maps = module(shown), module.features(shown)
        merged = merge(module)
        torch.testing.assert_close(merged(shown), expected, rtol=1e-5, atol=1e-5)
        for one, other in zip(merged.features(shown), maps, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert not adapted_layers(merged)
    assert not any(type(child).__module__.startswith("peft") for child in merged.modules())
    reference = build(Frozen())
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in reference.named_parameters()]


@pytest.mark.parametrize("method", [*METHODS, BitFit(), LinearProbe()], ids=repr)
def test_the_same_seed_gives_the_same_and_bfloat16_is_finite(method: Method) -> None:
    one, same = build(method), build(method)
    assert [name for name, _ in one.state_dict().items()] == [name for name, _ in same.state_dict().items()]
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in one.state_dict().items())
    assert torch.equal(one(images()), same(images()))
    with torch.autocast("cpu", torch.bfloat16):
        logits = one.train()(images())
        logits.float().square().mean().backward()
    assert logits.isfinite().all() and logits.shape == (2, 3, 32, 32)
    gradients = [parameter.grad for parameter in one.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_one_image_of_one_band_and_no_copies_in_the_state(method: TunerMethod) -> None:
    module = build(method, bands=1, classes=5)
    assert module(torch.randn(1, 1, 32, 32)).shape == (1, 5, 32, 32)
    names = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    assert module.state_dict().keys() <= names, "what layers share would be stored once for each"


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_papers_count_the_adapter_alone(method: TunerMethod) -> None:
    module = build(method)
    trained = {name: p.numel() for name, p in module.named_parameters() if p.requires_grad}
    counts = {part.name: part for part in count_parts(module, method.parts(), {"segment": set(trained)})}
    layers = adapted_layers(module)
    inside = sum(size for name, size in trained.items() if any(name.startswith(f"{layer}.") for layer in layers))
    assert counts["adapter"].published == counts["adapter"].trainable == inside > 0
    assert sum(part.published for part in counts.values()) == inside
    assert counts["LayerNorms"].trainable == (4 * SIZES["depth"] * 32 if getattr(method, "train_norms", False) else 0)
    assert counts["patch embedding"].trainable == 32 * (4 * 64 + 1)


# ---------------------------------------------------------------------------------------------- formulas


def test_lora_and_dora_compute_their_formulas() -> None:
    x = torch.randn(3, 7, 32)
    for method in (Lora(rank=3, alpha=6.0), Dora(rank=3, alpha=6.0)):
        layer = stir(build(method)).backbone.blocks[1].attn.proj
        weight, bias = layer.base_layer.weight, layer.base_layer.bias
        moved = weight + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        if isinstance(method, Dora):
            magnitude = layer.lora_magnitude_vector["default"].weight
            moved = magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True)
        torch.testing.assert_close(layer(x), x @ moved.T + bias, rtol=1e-4, atol=1e-5)


def test_vera_shares_two_random_matrices_that_nothing_stores() -> None:
    module = stir(build(Vera(rank=5)))
    layers = [module.backbone.blocks[block].mlp.fc1 for block in (0, 1)]
    shared = layers[0].vera_A["default"], layers[0].vera_B["default"]
    assert layers[1].vera_A["default"] is shared[0]
    assert not any("vera_A" in name or "vera_B" in name for name in module.state_dict())
    torch.manual_seed(99)  # they do not depend on the state of chance
    assert torch.equal(Vera(rank=5).build(make_task()).backbone.blocks[0].mlp.fc1.vera_A["default"], shared[0])
    x, layer = torch.randn(2, 32), layers[0]
    inner = (x @ shared[0][:, :32].T) * layer.vera_lambda_d["default"]
    added = (inner @ shared[1][: layer.out_features].T) * layer.vera_lambda_b["default"]
    torch.testing.assert_close(layer(x), layer.base_layer(x) + added, rtol=1e-4, atol=1e-5)


def test_oft_rotates_unless_it_is_told_to_approximate() -> None:
    distances = []
    for approximate in (False, True):
        layer = build(Oft(approximate=approximate)).backbone.blocks[0].attn.proj
        nn.init.constant_(layer.oft_R["default"].weight, 0.05)
        rotation = layer.get_delta_weight("default")
        distances.append((rotation @ rotation.T - torch.eye(32)).abs().max().item())
    assert distances[0] < 1e-5 < distances[1]


def test_ia3_scales_keys_values_and_what_enters_the_last_layer() -> None:
    block = stir(build(Ia3())).backbone.blocks[0]
    x, hidden = torch.randn(2, 32), torch.randn(2, 128)
    scales = [block.attn.qkv.ia3_l["default"].flatten(), block.mlp.fc2.ia3_l["default"].flatten()]
    assert [len(one) for one in scales] == [96, 128]
    torch.testing.assert_close(block.attn.qkv(x), block.attn.qkv.base_layer(x) * scales[0])
    torch.testing.assert_close(block.mlp.fc2(hidden), block.mlp.fc2.base_layer(hidden * scales[1]))


def test_fourierft_has_as_many_entries_as_it_says_or_the_layer_holds() -> None:
    layers = build(FourierFt(frequencies=2000)).backbone.blocks[0]
    assert layers.attn.qkv.fourierft_spectrum["default"].shape == (2000,)
    assert layers.attn.proj.fourierft_spectrum["default"].shape == (32 * 32,)


# ---------------------------------------------------------------------------------------------- AdaLoRA


def adalora_run(steps: int, **options: float) -> tuple[AdaLora, nn.Module, list[int]]:
    """A training, and how many ranks were left after each step."""
    method = AdaLora(rank=2, initial_rank=6, interval=1, **options)
    task = make_task(steps=steps, learning_rate=1e-2)
    torch.manual_seed(0)
    module = method.build(task)
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    stage = method.stages(task)[0]
    stage_task = StageTask(module, nn.Identity(), stage, task.budget, declared, None, None, 3)
    optimiser, ranks = stage_task.configure_optimizers(), []
    for step in range(steps):
        batch = {
            "image": torch.randn(2, 4, 32, 32), "mask": torch.randint(0, 3, (2, 32, 32)),
            "domain": torch.zeros(2, dtype=torch.long),
        }  # fmt: skip
        optimiser.zero_grad()
        stage_task.training_step(batch, step).backward()
        optimiser.step()
        stage_task.on_train_batch_end(None, batch, step)
        entries = [p for name, p in module.named_parameters() if ".lora_E." in name]
        ranks.append(sum(int((entry != 0).sum()) for entry in entries))
    return method, module, ranks


def test_adalora_cuts_ranks_to_its_budget_and_keeps_them_cut() -> None:
    method, module, ranks = adalora_run(12, warmup=0.25, final=0.25)
    layers = 4 * SIZES["depth"]
    assert method.timetable(12) == (3, 3, 12)
    assert ranks[:3] == [6 * layers] * 3, "nothing is cut in the warm-up"
    assert ranks == sorted(ranks, reverse=True) and ranks[5] < ranks[3]
    assert ranks[8:] == [2 * layers] * 4, "in the final phase ranks stay"
    each = [int((p != 0).sum()) for name, p in module.named_parameters() if ".lora_E." in name]
    assert len(set(each)) > 1, "layers share the budget"


def test_a_run_cuts_ranks_before_it_validates(tmp_path: Path) -> None:
    request = make_request(make_tree(tmp_path / "data"), "adalora", steps=2, validations=1)
    cells, broken = plan(request, lambda _: None)
    (outcome,) = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert not broken and outcome.state == "done", outcome.message
    stored = load_file(outcome.record.with_name("selected.safetensors"))
    entries = [value for name, value in stored.items() if ".lora_E." in name]
    assert sum(len(entry) for entry in entries) == 24 * 4 * SIZES["depth"]
    assert sum(int((entry != 0).sum()) for entry in entries) == 16 * 4 * SIZES["depth"]


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_adalora_stands_short_trainings(steps: int) -> None:
    warm, final, total = AdaLora().timetable(steps)
    assert 0 <= warm < total - final and final >= 0 and total - final >= 2
    ranks = adalora_run(steps)[2]
    assert len(ranks) == steps and (steps == 1 or ranks[-1] == 2 * 4 * SIZES["depth"])


def test_adalora_keeps_its_factors_near_orthogonality() -> None:
    method = AdaLora(rank=2, initial_rank=4, orthogonal=0.5)
    module = build(method)
    with torch.no_grad():
        for name, factor in module.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                nn.init.orthogonal_(factor)
    assert orthogonality(module) < 1e-5
    nn.init.zeros_(module.backbone.blocks[0].attn.proj.lora_A["default"])
    distance = orthogonality(module)
    torch.testing.assert_close(distance, torch.tensor(2.0 / (2 * 4 * SIZES["depth"])))  # |0 - I| of rank 4 is 2
    stage = method.stages(make_task())[0]
    batch = {"image": images(), "mask": torch.zeros(2, 32, 32, dtype=torch.long)}
    logits, added = stage.outputs(module, batch)
    torch.testing.assert_close(added, 0.5 * distance)
    expected = nn.functional.cross_entropy(logits, batch["mask"]) + added
    torch.testing.assert_close(stage.loss(module, batch), expected)


# ---------------------------------------------------------------------------------------------- by name


WORKING = ("delora", "gralora", "hira", "loha", "randlora")


@pytest.mark.parametrize("tuner", WORKING)
def test_any_tuner_goes_by_its_name(tuner: str) -> None:
    if tuner not in tuners():
        pytest.skip(f"the installed peft has no {tuner}")
    module = stir(build(make_method("peft", {"tuner": tuner}))).double()
    assert len(adapted_layers(module)) == 4 * SIZES["depth"]
    with torch.no_grad():
        expected = module(images().double())
        torch.testing.assert_close(merge(module)(images().double()), expected, rtol=1e-5, atol=1e-5)


def test_options_of_a_tuner_are_converted_and_kept() -> None:
    made = make_method("peft", {"tuner": "lokr", "config.r": "3", "config.decompose_both": "true", "where": "mlp"})
    assert made.model_dump()["config"] == {"r": 3, "decompose_both": True}
    assert make_method("peft", made.model_dump(mode="json")) == made, "a record's options make the same method"
    pattern = make_method("peft", {"tuner": "lora", "config.rank_pattern": '{"qkv": 2}', "config.use_rslora": "1"})
    assert pattern.config == {"rank_pattern": {"qkv": 2}, "use_rslora": True}
    assert build(pattern).backbone.blocks[0].attn.qkv.lora_A["default"].weight.shape == (2, 32)
    assert make_method("peft").config == {}, "what one method was given is not another's"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuner": "lokrr"}, r"has no tuner 'lokrr'[\s\S]*did you mean lokr[\s\S]*known: [\s\S]*vera"),
        ({"tuner": "zzz"}, r"has no tuner 'zzz'[\s\S]*known: [\s\S]*lora"),
        ({"tuner": "boft"}, r"'boft' of peft cannot be used here: without a CUDA extension"),
        ({"tuner": "ia3"}, r"--method ia3"),
        ({"tuner": "lokr", "config.ranc": "8"}, r"has no option config.ranc[\s\S]*known: [\s\S]*alpha"),
        ({"tuner": "lokr", "config.r": "many"}, r"option config.r of tuner 'lokr'[\s\S]*not 'many'"),
        ({"tuner": "lokr", "config.target_modules": "all-linear"}, r"has no option config.target_modules"),
        ({"tuner": "oft", "config.r": "4", "config.oft_block_size": "4"}, r"options of tuner 'oft': You can only"),
        ({"rank": 3}, r"has no option 'rank'"),
        ({"decoder": "upernett"}, r"no decoder 'upernett'[\s\S]*upernet"),
    ],
)
def test_mistakes_are_told_before_anything_is_built(options: dict, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make_method("peft", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 30}, "initial_rank is 24, expected more than rank"),
        ({"warmup": 0.6}, "leave no steps in which ranks are cut"),
    ],
)
def test_impossible_schedules_are_refused(options: dict, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make_method("adalora", options)


def test_what_does_not_fit_the_backbone_is_told_when_it_is_built() -> None:
    with pytest.raises(MethodError, match=r"32 inputs of blocks\.0\.attn\.qkv cannot be rotated in blocks of 24"):
        build(Oft(block=24))
    with pytest.raises(MethodError, match=r"peft cannot put C3A into this backbone"):
        build(make_method("peft", {"tuner": "c3a"}))


def test_the_lists_of_exceptions_name_what_peft_has() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {str(kind.value).lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert ELSEWHERE.keys() <= known and {"boft", "poly", "xlora"} <= known & UNFIT.keys()
    assert not tuners().keys() & (ELSEWHERE.keys() | UNFIT.keys())
    assert {"lora", "vera", "oft", "fourierft", "lokr"} <= tuners().keys() and "prompt_tuning" not in tuners()
    assert "target_modules" in OURS


# ---------------------------------------------------------------------------------------------- without peft


def test_bitfit_trains_biases_and_the_probe_one_convolution() -> None:
    def backbone_trains(method: Method) -> set[str]:
        return {n for n, p in build(method).named_parameters() if p.requires_grad and n.startswith("backbone.")}

    biases = {n for n, _ in build(Frozen()).named_parameters() if n.startswith("backbone.") and n.endswith("bias")}
    assert len(biases) == 1 + SIZES["depth"] * 6
    assert backbone_trains(BitFit(train_patch_embed=False)) == biases
    assert backbone_trains(BitFit()) == biases | {"backbone.patch_embed.proj.weight"}

    probe = build(LinearProbe())
    trained = {name: p for name, p in probe.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == 32 * 3 + 3
    assert all(name.startswith("decoder.") for name in trained)
    with torch.no_grad():
        last = probe.features(images())[-1]
        (weight,) = (p for name, p in trained.items() if name.endswith("weight"))
        (bias,) = (p for name, p in trained.items() if name.endswith("bias"))
        cells = torch.einsum("bchw,kc->bkhw", last, weight.flatten(1)) + bias[:, None, None]
        expected = nn.functional.interpolate(cells, size=(32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(probe(images()), expected, rtol=1e-4, atol=1e-5)
    assert backbone_trains(LinearProbe(train_patch_embed=True)) == {
        "backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias",
    }  # fmt: skip
