from __future__ import annotations

import pytest
import torch

from spectralx.masked import Mask, patchify, unpatchify
from spectralx.reconstructions import reconstruct


def test_unpatchify_undoes_patchify() -> None:
    images = torch.randn(2, 3, 8, 12)
    assert torch.equal(unpatchify(patchify(images, 4), images.shape, 4), images)


def test_perfect_predictions_give_the_image_back(make) -> None:
    model, images = make(), torch.randn(3, 5, 32, 32) * 4 + 2
    patches = patchify(images, model.patch)
    centred = patches - patches.mean(-1, keepdim=True)
    perfect = centred * (centred.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    hidden = torch.zeros(3, 16)
    hidden[:, ::2] = 1
    picture = model.reconstruction.picture(perfect, images)
    model.reconstruct = lambda images, generator: (picture, Mask(torch.zeros(3, 8, dtype=torch.long), hidden))
    shown = reconstruct(model, images)
    torch.testing.assert_close(shown.reconstruction, images)
    cells = patchify(shown.masked, model.patch)
    assert not cells[hidden > 0].any() and torch.equal(cells[hidden == 0], patches[hidden == 0])


def test_the_generator_decides_what_is_hidden(make) -> None:
    model, images = make().eval(), torch.randn(2, 5, 32, 32)

    def masked(seed: int) -> torch.Tensor:
        return reconstruct(model, images, torch.Generator().manual_seed(seed)).masked

    assert torch.equal(masked(1), masked(1)) and not torch.equal(masked(1), masked(2))


def test_without_a_decoder_there_is_nothing_to_show(make) -> None:
    with pytest.raises(RuntimeError, match="cannot reconstruct"):
        reconstruct(make(reconstruction=False), torch.randn(1, 5, 32, 32))
