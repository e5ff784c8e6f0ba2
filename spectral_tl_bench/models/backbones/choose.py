"""Puts weights on a backbone: which file, and how it fits, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import torch

from spectral_tl_bench.console import user_path
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import digest, file_digest
from spectral_tl_bench.models.backbones.assemble import fit_state, read_weights
from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.hub import locate_hub
from spectral_tl_bench.models.backbones.spec import Weights
from spectral_tl_bench.models.patch_embedding import COMPOSITES, RGB


def with_weights(spec: Backbone, choice: str) -> Backbone:
    """The backbone with the weights that a user chose.

    The file's names and shapes are compared with the network at once, without its numbers.

    Args:
        spec: The backbone; its ``patch_embedding`` says what becomes of the bands.
        choice: ``hub``, ``hub:NAME``, ``bundled``, or the path of a file; the paths of ``spec.files``, joined by ``+``.

    Raises:
        UserError: If the weights cannot be had or do not fit.
    """
    source, paths = _located(spec, choice)
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"there are no weights for {spec.name}", where=path, expected=f"hub, none, or a file; {spec.card.how}"
            )
    digests = [file_digest(path) for path in paths]
    first, *others = map(str, paths)
    weights = Weights(source, first, digest(digests) if others else digests[0], others=tuple(others))
    spec = replace(spec, weights=weights)  # named in errors
    bands = spec.card.bands or RGB
    side = max(1, spec.card.image_size // spec.patch) * spec.patch
    with torch.device("meta"):
        network = spec.make(spec.for_sensor(bands, None), len(bands), side)
    told = spec.alone() if spec.patch_embedding == COMPOSITES else spec.for_sensor(bands, None)
    fit = fit_state(told, network, read_weights(weights, "meta"), len(bands))
    examples = [f"missing {name}" for name in fit.missing[:3]] + [f"unexpected {n}" for n in fit.unexpected[:3]]
    weights = replace(
        weights, matched=round(fit.matched, 4), missing=len(fit.missing), unexpected=len(fit.unexpected),
        examples=tuple(examples),
    )  # fmt: skip
    return replace(spec, weights=weights, pretrained=spec.tag or f"file:{weights.digest[:12]}")


def _located(spec: Backbone, choice: str) -> tuple[str, list[Path]]:
    if choice == "hub" or choice.startswith("hub:"):
        name, path = locate_hub(spec, choice.partition(":")[2])
        return f"hub:{name}", [path]
    if choice == "bundled":
        if spec.bundled is None:
            raise UserError(f"{spec.name} comes without weights", expected=f"--weights FILE or none; {spec.card.how}")
        package, _, inside = spec.bundled.partition(":")
        with as_file(files(package).joinpath(inside)) as path:
            return "bundled", [path]
    return "file", [user_path(part).resolve() for part in _parts(spec, choice)]


def _parts(spec: Backbone, choice: str) -> list[str]:
    """The paths in a choice of several files; names may have a ``+`` of their own."""
    if not spec.files:
        return [choice]
    places = [place for place, letter in enumerate(choice) if letter == "+"]
    cuts = [[choice[:place], choice[place + 1 :]] for place in places]
    found = next((parts for parts in cuts if all(user_path(part).is_file() for part in parts)), None)
    if found is None and len(cuts) != 1:
        raise UserError(
            f"the weights of {spec.name} are in {len(spec.files)} files", where=choice,
            expected=f"{' and '.join(spec.files)}, joined by +: --weights FILE+FILE",
        )  # fmt: skip
    return found or cuts[0]
