"""Which components take part in a cell, and the numerics version of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spectral_tl_bench.data import rasters
from spectral_tl_bench.evaluation import evaluate
from spectral_tl_bench.features import kept
from spectral_tl_bench.identity import version_of
from spectral_tl_bench.methods.base import Backbone, Method
from spectral_tl_bench.methods.registry import distribution_of, split_name
from spectral_tl_bench.models import decoders, patch_embedding
from spectral_tl_bench.models.backbones import input_scale
from spectral_tl_bench.models.backbones.registry import backbone_entries
from spectral_tl_bench.objectives.base import Objective
from spectral_tl_bench.objectives.registry import objective_entries
from spectral_tl_bench.plugins import package_of
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.protocol.strict import STRICT
from spectral_tl_bench.training import plateau, task


def numerics_of(
    protocol: Protocol, method_name: str, method: Method, objectives: Mapping[str, Objective], backbone: Backbone,
    until_plateau: bool = False,
) -> dict[str, str]:  # fmt: skip
    """The numerics version of every component that takes part.

    Args:
        backbone: The backbone; counted where the method uses one.
        until_plateau: Whether training ends at a plateau.
    """
    versions = {
        "data": str(rasters.NUMERICS_VERSION),
        "training": str(task.NUMERICS_VERSION),
        "evaluation": str(evaluate.NUMERICS_VERSION),
        **protocol.versions(),
        **method_versions(method_name, method),
    }
    if method.kept_features() is not None:
        versions["kept features"] = str(kept.NUMERICS_VERSION)
    if method.uses_backbone:
        versions |= backbone_versions(backbone)
    if until_plateau:
        versions["plateau"] = str(plateau.NUMERICS_VERSION)
    entries = objective_entries()
    for name, objective in objectives.items():
        versions[f"objective {name}"] = version_of(type(objective), *package_of(entries[name]))
    return dict(sorted(versions.items()))


def stage_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Those of them that a first stage without labels depends on.

    It draws its weights after those of the decoder that stands beside it, hence the decoder.
    """
    names = ("data", "training", "normalisation", "augmentation", "windows", "decoder")
    return _only(versions, names, ("method ",))


def feature_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Those of them that kept features depend on.

    Not the decoder, which takes features and makes none. Nor the method: methods share the features of one backbone,
    whose weights are hashed, and how they are taken from it is spoken for by ``kept features``, or, in somebody else's
    package, by a hash of its code.
    """
    return _only(versions, ("data", "normalisation", "windows", "kept features"))


def named_parts(protocol: Protocol, names: Sequence[str]) -> dict[str, str]:
    """Name and version of those parts of a protocol that are not the usual ones.

    What is kept for several protocols must tell them apart where two rules happen to have one version; what was kept
    under the usual rules stays what it is.
    """
    usual, versions = STRICT.parts(), protocol.versions()
    return {
        name: f"{getattr(part, 'name', type(part).__name__)} {versions[name]}"
        for name, part in protocol.parts().items()
        if name in names and getattr(part, "name", None) != usual[name].name
    }


def _only(versions: Mapping[str, str], names: Sequence[str], beginnings: Sequence[str] = ()) -> dict[str, str]:
    chosen, starts = {*names, "patch embedding"}, (*beginnings, "backbone ")
    return {name: version for name, version in versions.items() if name in chosen or name.startswith(starts)}


def method_versions(name: str, method: Method) -> dict[str, str]:
    """That of a method, and those of the classes of ours that somebody else's stands on."""
    kind, package = type(method), distribution_of(name)
    own = kind.__module__.partition(".")[0]
    versions = [version_of(kind, *package)]
    for parent in kind.__mro__[1:]:
        if parent.__module__.partition(".")[0] != own and vars(parent).get("numerics_version") is not None:
            versions.append(version_of(parent, *package))
    return {f"method {split_name(name)[0]}": " on ".join(versions)}


def backbone_versions(backbone: Backbone) -> dict[str, str]:
    """Those of a backbone's family, of how it reads the bands, and of the decoder on it."""
    entry = backbone_entries().get(backbone.name)
    family = getattr(backbone.make, "family", backbone.name)
    version = getattr(backbone.make, "numerics_version", None)
    return {
        f"backbone {family}": " ".join(package_of(entry)) if version is None else str(version),
        "patch embedding": str(patch_embedding.NUMERICS_VERSION),
        "decoder": str(decoders.NUMERICS_VERSION),
        **({"backbone reading": str(input_scale.NUMERICS_VERSION)} if backbone.reads_otherwise else {}),
    }
