"""Networks from scratch: any image, any batch, everything trains, and nothing is counted that does not run."""

from __future__ import annotations

import pytest
import torch
from tiny import make_task
from torch import nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.from_scratch import AnySize, BatchNorm2d
from spectral_tl_bench.methods.registry import make_method

METHODS = ["unet", "deeplabv3plus"]
methods = pytest.mark.parametrize("name", METHODS)


def built(name: str, bands: int = 4, **options) -> nn.Module:
    torch.manual_seed(0)
    return make_method(name, options).build(make_task(bands=bands))


@methods
@pytest.mark.parametrize(("size", "bands"), [((32, 32), 4), ((40, 24), 1), ((17, 65), 13), ((64, 64), 32)])
def test_logits_have_the_size_of_the_image(name, size, bands):
    module = built(f"{name}@small", bands).eval()
    with torch.no_grad():
        assert module(torch.randn(2, bands, *size)).shape == (2, 3, *size)


@methods
@pytest.mark.parametrize("preset", ["", "@small"])
def test_a_batch_of_one_trains_even_where_the_coarsest_map_is_a_pixel(name, preset):
    module = built(name + preset).train()
    side = 2 ** (3 if preset else 5)
    logits = module(torch.randn(1, 4, side, side))
    (logits * torch.randn_like(logits)).sum().backward()
    gradients = [p.grad for p in module.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@methods
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_a_shallower_encoder_has_no_idle_stages(name, depth):
    module = built(name, encoder="resnet18", encoder_depth=depth).train()
    logits = module(torch.randn(2, 4, 64, 64))
    (logits * torch.randn_like(logits)).sum().backward()
    assert [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    stages = {key.split(".")[2] for key, _ in module.named_parameters() if key.startswith("network.encoder.layer")}
    assert stages == {f"layer{number}" for number in range(1, depth)}


@methods
def test_all_batch_norms_tolerate_one_value(name):
    norms = [child for child in built(name).modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(child, BatchNorm2d) for child in norms)


@methods
def test_weights_are_random_and_follow_the_seed(name):
    one, same = built(name + "@small").state_dict(), built(name + "@small").state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    torch.manual_seed(1)
    other = make_method(name + "@small").build(make_task()).state_dict()
    assert not torch.equal(one["network.encoder.conv1.weight"], other["network.encoder.conv1.weight"])


def test_published_sizes():
    """Without the first convolution, which depends on the bands, and the fully connected layer: He et al., 2016."""
    with torch.device("meta"):
        for encoder, expected in (("resnet18", 11_689_512 - 513_000), ("resnet34", 21_797_672 - 513_000),
                                  ("resnet50", 25_557_032 - 2_049_000)):  # fmt: skip
            module = make_method("unet", {"encoder": encoder}).build(make_task(bands=3))
            assert sum(p.numel() for p in module.network.encoder.parameters()) == expected


def test_the_border_is_continued_and_cut_off_again():
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images

    images = torch.randn(2, 3, 5, 9)
    assert torch.equal(AnySize(Spy(), 8)(images), images) and seen[0].shape == (2, 3, 8, 16)
    assert torch.equal(seen[0][..., 5, :9], images[..., 4, :])
    even = torch.randn(1, 3, 8, 16)
    assert AnySize(Spy(), 8)(even).shape == even.shape and seen[1] is even


@methods
def test_impossible_options_are_refused(name):
    with pytest.raises(MethodError, match="option 'encoder_depth'"):
        make_method(name, {"encoder_depth": 2})
    with pytest.raises(MethodError, match="option 'encoder'"):
        make_method(name, {"encoder": "vgg16"})
