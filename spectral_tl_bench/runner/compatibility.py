"""Which method goes with which backbone: found out by building them without numbers, before any data is read."""

from __future__ import annotations

import torch

from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.models.backbones import Backbone, backbone_entries, load_backbone
from spectral_tl_bench.models.patch_embedding import COMPOSITES

ANYWHERE = ("full", "frozen", "linear-probe", "bitfit")
"""Our methods that leave the layers of a backbone as they are, and therefore go with every backbone."""

OTHERWISE = "choose another --backbone, or leave out --patch-embedding"


def check_pair(name: str, method: Method, task: Task) -> None:
    """Refuse a method that cannot be built on a backbone which is not the plain vision transformer.

    What a method raises on a plain one is its own mistake, and ends its own cells later on.

    Args:
        name: The method's name.

    Raises:
        UserError: If it cannot; it names the backbones that are of the usual kind.
    """
    backbone = task.backbone
    if _plain(backbone):
        return
    try:
        with torch.device("meta"):
            method.build(task)
    except MethodError as error:
        raise MethodError(
            f"method {name!r} does not go with {_described(backbone)}: {error.what}",
            where=error.where,
            expected="; ".join(part for part in (error.expected, _expected()) if part),
            fix=_advice() if backbone.kind == "pyramid" or backbone.form else error.fix,
        ) from error
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = (str(error).strip().splitlines() or [""])[0][:300]
        if not text or isinstance(error, (AttributeError, KeyError)):  # those of others are written for people
            text = f"{type(error).__name__}: {text}"
        raise MethodError(
            f"method {name!r} does not go with {_described(backbone)}: {text}",
            expected=_expected(),
            fix=_advice() if backbone.kind == "pyramid" else OTHERWISE,
        ) from error
    except Exception:  # noqa: S110 (meta tensors hold no numbers: the cell will tell whether this matters)
        pass


def plain_backbones() -> list[str]:
    """Names of the installed vision transformers with an ordinary patch embedding."""
    names = []
    for name in backbone_entries():
        try:
            spec = load_backbone(name)
        except UserError:  # of another package, which is not asked for
            continue
        if spec.kind == "vit" and not (spec.reads_wavelengths or spec.form):
            names.append(name)
    return names


def _expected() -> str:
    return f"a plain vision transformer: {', '.join(plain_backbones())}, or timm:NAME of one"


def _advice() -> str:
    return f"choose another --backbone, or a method that goes with all of them: {', '.join(ANYWHERE)}"


def _plain(backbone: Backbone) -> bool:
    usual = (
        backbone.kind == "vit"
        and not backbone.reads_wavelengths
        and backbone.patch_embedding not in ("lowrank", COMPOSITES)
    )
    return usual and not (backbone.architecture or backbone.form or backbone.input_norm != "source")


def _described(backbone: Backbone) -> str:
    notes = {"pyramid": "four maps of different widths"}.get(backbone.kind, "a vision transformer")
    if backbone.reads_wavelengths:
        notes += " with a patch embedding of its own"
    if backbone.form:
        notes += f" with {backbone.form}"
    return f"backbone {backbone.name} ({notes}, patch embedding {backbone.patch_embedding!r})"
