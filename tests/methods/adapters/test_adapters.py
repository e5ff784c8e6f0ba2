"""What holds for every adapter: where it sits, what it leaves alone, and that the backbone works as before."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from adapting import BANDS, GRID, PATCH, WIDTH, adapters, eva, images, maps, stir, vit
from safetensors.torch import load_file, save_file
from tiny import make_task
from torch import nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.adaptformer import AdaptFormer
from spectral_tl_bench.methods.adapters.earth_adapter import EarthAdapter
from spectral_tl_bench.methods.adapters.method import AdapterMethod
from spectral_tl_bench.methods.adapters.place import check_vit, freeze
from spectral_tl_bench.methods.adapters.ssf import Ssf
from spectral_tl_bench.methods.registry import load_method, make_method

NAMES = ("adaptformer", "earth-adapter", "houlsby", "land-moe", "rein", "ssf", "vpt-deep", "vpt-shallow")
AFTER_BLOCKS = ("earth-adapter", "land-moe", "rein")


WITHOUT_CHANCE = {"adaptformer": {"dropout": 0.0}}
"""Options with which a method computes the same twice in training mode."""

SLOW = pytest.mark.slow
"""For what takes the compiler seconds: the default tests compile one of each kind."""


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest) -> AdapterMethod:
    return make_method(request.param, WITHOUT_CHANCE.get(request.param, {}))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def same(one: list[torch.Tensor], other: list[torch.Tensor], **tolerance: float) -> bool:
    return all(torch.allclose(a, b, **tolerance) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_maps_have_their_shape_and_every_adapter_parameter_a_gradient(method, prefix):
    plain, adapted = maps(vit(prefix), images()), stir(method.insert(vit(prefix)))
    given = maps(adapted, images())
    assert [one.shape for one in given] == [one.shape for one in plain] == [(2, WIDTH, *GRID)] * 4
    assert not same(given, plain)
    sum(one.square().mean() for one in given).backward()
    assert adapters(adapted) and {n for n, p in adapted.named_parameters() if p.requires_grad} == set(adapters(adapted))
    assert not [n for n, p in adapters(adapted).items() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_images_of_another_size_and_a_batch_of_one(method, prefix):
    backbone = stir(method.insert(vit(prefix, dynamic_img_size=True)))
    for grid in ((5, 3), (1, 4), (2, 2)):
        for one in maps(backbone, images(1, grid)):
            assert one.shape == (1, WIDTH, *grid) and one.isfinite().all()
    both, alone = maps(backbone, images(2)), maps(backbone, images(2)[1:])
    assert same([one[1:] for one in both], alone, atol=1e-5), "images do not act on each other"


def test_the_indices_of_blocks_mean_the_same(method):
    backbone = stir(method.insert(vit()))
    every = maps(backbone, images())
    assert same(maps(backbone, images(), indices=[1, 3]), [every[1], every[3]])
    last, taken = backbone.forward_intermediates(images(), indices=[3], norm=False, output_fmt="NLC")
    assert last.shape == (2, 1 + 15, WIDTH)
    assert same(taken, [every[3].flatten(2).transpose(1, 2)])


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("more", [{}, {"qkv_fused": False}, {"swiglu_mlp": True}], ids=str)
def test_backbones_with_rotary_positions(method, prefix, more):
    plain, adapted = maps(eva(prefix), images()), method.insert(eva(prefix, **more))
    if not more and isinstance(method, AdaptFormer | EarthAdapter | Ssf):
        assert same(maps(adapted, images()), plain, atol=1e-6)
    given = maps(stir(adapted), images())
    assert [one.shape for one in given] == [one.shape for one in plain]
    assert all(one.isfinite().all() for one in given) and not same(given, plain)


@pytest.mark.parametrize("name", AFTER_BLOCKS)
@pytest.mark.parametrize("prefix", [0, 5])
def test_patch_tokens_are_refined_after_every_block_with_rows_and_columns_in_their_order(name, prefix):
    plain, adapted = vit(prefix, depth=2), stir(make_method(name).insert(vit(prefix, depth=2)))
    tokens = plain._pos_embed(plain.patch_embed(images()))
    for layer, (block, given) in enumerate(zip(plain.blocks, maps(adapted, images()), strict=True)):
        tokens = block(tokens)
        refined = adapted.adapter.refine(tokens[:, prefix:], layer, GRID)
        torch.testing.assert_close(given.flatten(2).transpose(1, 2), refined)
        tokens = torch.cat([tokens[:, :prefix], refined], dim=1)


@pytest.mark.parametrize("name", AFTER_BLOCKS)
@pytest.mark.parametrize("prefix", [1, 5])
def test_class_and_register_tokens_pass_by(name, prefix):
    plain, adapted = vit(prefix, depth=1), stir(make_method(name).insert(vit(prefix, depth=1)))
    without, with_adapter = plain.forward_features(images()), adapted.forward_features(images())
    torch.testing.assert_close(with_adapter[:, :prefix], without[:, :prefix])
    assert not torch.isclose(with_adapter[:, prefix:], without[:, prefix:]).all(dim=-1).any()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("adaptformer", 0.0, 1e-6), ("ssf", 0.0, 1e-6), ("earth-adapter", 0.0, 1e-6),
        ("houlsby", 1e-6, 1e-2), ("rein", 1e-6, 1e-2), ("land-moe", 1e-6, 1e-2),
        ("vpt-shallow", 1e-2, 10.0), ("vpt-deep", 1e-2, 10.0),
    ],
)  # fmt: skip
def test_how_far_an_untrained_adapter_is_from_none(name, least, most):
    plain, adapted = vit(init_values=1.0), make_method(name).insert(vit(init_values=1.0))
    with torch.no_grad():
        pairs = zip(maps(adapted, images()), maps(plain, images()), strict=True)
        distance = max(float((one - other).norm() / other.norm()) for one, other in pairs)
    assert least <= distance <= most


def test_a_file_of_weights_makes_the_same_model(method, tmp_path):
    one, other = stir(method.insert(vit())), method.insert(vit())
    save_file(one.state_dict(), tmp_path / "weights.safetensors")
    assert not same(maps(one, images()), maps(other, images()))
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert same(maps(one, images()), maps(other, images()), atol=0)


def test_a_copy_uses_its_own_adapters(method):
    original = stir(method.insert(vit(dynamic_img_size=True)))
    before = maps(original, images())
    twin = copy.deepcopy(original)
    assert same(maps(twin, images()), before, atol=0)
    stir(twin)
    assert not same(maps(twin, images()), before)
    assert same(maps(original, images()), before, atol=0)
    maps(twin, images(1, (5, 3)))
    assert same(maps(original, images()), before, atol=0)


def test_bfloat16_autocast_is_finite_and_close(method):
    backbone = stir(method.insert(vit()), 0.05)
    exact = maps(backbone, images())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = maps(backbone, images())
        sum(one.float().square().mean() for one in rounded).backward()
    for one, other in zip(rounded, exact, strict=True):
        assert ((one - other).norm() / other.norm()).item() < 0.05
    assert all(p.grad.isfinite().all() for p in adapters(backbone).values())


def test_weights_in_bfloat16(method):
    given = maps(method.insert(vit()).bfloat16(), images().bfloat16())
    assert all(one.isfinite().all() for one in given)


def test_recomputed_activations_give_the_same_gradients(method):
    gradients = []
    for checkpointing in (False, True):
        backbone = stir(method.insert(vit()))
        getattr(backbone, "vit", backbone).set_grad_checkpointing(checkpointing)
        sum(one.square().mean() for one in maps(backbone, images())).backward()
        gradients.append([parameter.grad for parameter in adapters(backbone).values()])
    assert same(*gradients, atol=1e-6)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "name", [name if name in ("adaptformer", "rein", "vpt-deep") else pytest.param(name, marks=SLOW) for name in NAMES]
)
def test_the_backbone_is_one_graph(name):
    backbone = stir(make_method(name, WITHOUT_CHANCE.get(name, {})).insert(vit(depth=2)))
    compiled = torch.compile(lambda given: maps(backbone, given), fullgraph=True, backend="eager")
    outputs, gradients = [], []
    for run in (compiled, lambda given: maps(backbone, given)):
        backbone.zero_grad()
        outputs.append(run(images()))
        sum(one.square().mean() for one in outputs[-1]).backward()
        gradients.append([parameter.grad.clone() for parameter in adapters(backbone).values()])
    assert same(*outputs, atol=1e-5) and same(*gradients, atol=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["rein", *(pytest.param(name, marks=SLOW) for name in AFTER_BLOCKS if name != "rein")])
def test_a_compiled_backbone_follows_the_size_of_images(name):
    backbone = stir(make_method(name).insert(vit(depth=1, dynamic_img_size=True)))
    compiled = torch.compile(lambda given: maps(backbone, given), fullgraph=True, backend="eager", dynamic=False)
    for grid in ((3, 5), (5, 3)):
        assert same(compiled(images(1, grid)), maps(backbone, images(1, grid)), atol=1e-5)


@pytest.mark.parametrize("prefix", [0, 1])
def test_adapters_on_patch_tokens_need_all_of_them(prefix):
    backbone = make_method("rein").insert(vit(prefix, patch_drop_rate=0.5)).train()
    with pytest.raises(ValueError, match="for a grid of 3 x 5"):
        backbone(images())


def test_options_choose_what_trains_beside_the_adapter(method):
    task = make_task()
    for embed in (True, False):
        for norms in (True, False):
            torch.manual_seed(0)
            module = type(method)(train_patch_embed=embed, train_norms=norms).build(task)
            trained = {n for n, p in module.named_parameters() if p.requires_grad}
            assert embed == any(".patch_embed." in n and ".adapter." not in n for n in trained)
            assert norms == any(re.search(r"norm[12]\.(layer\.)?weight", n) for n in trained)
            rest = {n for n in trained if not re.search(r"^decoder\.|\.adapter\.|\.patch_embed\.|\.norm[12]\.", n)}
            assert not rest
            assert not [n for n in trained if re.search(r"cls_token|pos_embed|attn\.qkv\.(layer\.)?(weight|bias)", n)]


def test_what_of_the_patch_embedding_was_frozen_stays_frozen():
    backbone = vit().requires_grad_(True)
    backbone.patch_embed.proj.weight.requires_grad_(False)
    freeze(backbone, patch_embed=True, norms=False)
    assert {n for n, p in backbone.named_parameters() if p.requires_grad} == {"patch_embed.proj.bias"}
    freeze(backbone, patch_embed=False, norms=True)
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert trained and all(re.search(r"norm", n) for n in trained)


@pytest.mark.parametrize("bands", [1, 13])
def test_logits_for_any_number_of_bands_and_a_batch_of_one(method, bands):
    module = method.build(make_task(bands=bands, classes=5)).train()
    logits = module(torch.randn(1, bands, 32, 32))
    assert logits.shape == (1, 5, 32, 32) and logits.isfinite().all()


def test_the_same_seed_builds_the_same_weights(method):
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(method.build(make_task()).state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_the_decoder_is_chosen_by_its_name(method):
    seen = type(method)(decoder="linear").build(make_task())
    usual = method.build(make_task())
    assert type(seen.decoder) is not type(usual.decoder)


def test_the_adapter_is_a_part_of_its_own_and_is_what_papers_count(method):
    module = method.build(make_task())
    adapter, embedding = method.parts()
    names = [n for n, _ in module.named_parameters() if adapter.contains(n)]
    assert names and set(names) == {f"backbone.{n}" for n in adapters(module.backbone)}
    assert adapter.counted and not embedding.counted
    assert not [n for n in names if n.startswith("decoder.")]
    assert all(p.requires_grad for n, p in module.named_parameters() if n in names)


def test_other_networks_are_refused(method):
    with pytest.raises(MethodError, match="plain vision transformer: Linear has no patch_embed, blocks"):
        check_vit(nn.Linear(2, 2))
    strange = vit()
    strange.patch_embed = nn.Conv2d(BANDS, WIDTH, PATCH, PATCH)
    spec = SimpleNamespace(
        name="swan", kind="vit", width=WIDTH, widths=(WIDTH,) * 4, levels=(0, 1, 2, 3), composites=(),
        input_norm="source", level_norm="none", build=lambda *_: strange,
    )  # fmt: skip
    spec.alone = lambda: spec
    with pytest.raises(MethodError, match=r"swan has no patch_embed\.dynamic_feat_size"):
        method.build(replace(make_task(), backbone=spec))


def test_every_adapter_names_its_paper():
    for name in NAMES:
        kind = load_method(name)
        assert kind.family == "peft" and re.search(r"20(19|2\d)", kind.reference)
        first = (inspect.getdoc(kind) or "").partition("\n")[0]
        assert first.lower().startswith(name.split("-")[0][:3]) and len(first) < 120
        assert all(field.description for field in kind.model_fields.values())
