"""Adapters of HuggingFace peft in a timm backbone: where they go, how they get there, how they are merged."""

from __future__ import annotations

import contextlib
import re
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field
from torch import nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.base import Part, Task
from spectral_tl_bench.methods.options import EMBED_DIFFERS, NORMS_TEXT, PATCH_EMBED_TEXT, WithDecoder
from spectral_tl_bench.models.segmenter import ViTSegmenter, build_segmenter

if TYPE_CHECKING:
    from peft import PeftConfig

Where = Literal["all", "attention", "mlp"]

NAMES = {"attention": "attn", "mlp": "mlp"}
"""The two halves of a transformer block, in timm's names."""


ADAPTER = "default"
"""peft's name for the adapter; part of the name of each of its parameters."""

NORMS = re.compile(r"\.norm\d?\.(base_layer\.)?(weight|bias)$")


def block_layers(backbone: nn.Module, kind: type[nn.Module], where: Where = "all") -> list[str]:
    """Names of the layers of one kind inside the blocks of a timm backbone.

    Args:
        kind: Class of the layers.
        where: ``attention``, ``mlp`` or all of the block.
    """
    steps = {name: name.split(".") for name, child in backbone.named_modules() if isinstance(child, kind)}
    return [name for name, path in steps.items() if "blocks" in path and (where == "all" or NAMES[where] in path)]


def pattern(names: Sequence[str], where: str) -> str:
    """The regular expression that matches ``names`` and nothing else, as peft takes its targets.

    Args:
        where: What was looked for, for the message.

    Raises:
        MethodError: If there are none.
    """
    if not names:
        raise MethodError(
            f"the backbone has no layers to adapt: where={where}",
            expected="blocks with `attn` or `mlp` in timm's names",
            fix="choose another value for the option where, or another backbone",
        )
    return "|".join(map(re.escape, names))


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Keep back those warnings of peft that are about what is done here on purpose."""
    with warnings.catch_warnings():
        for message in ("Specified to not save", "Unsupported layer type '<class '(timm|torch)"):
            warnings.filterwarnings("ignore", message=message)
        yield


def inject(backbone: nn.Module, config: PeftConfig) -> Any:
    """Freezes a backbone and puts peft's layers around those that ``config`` names, in place.

    ``peft.inject_adapter_in_model`` does the same, but refuses tuners whose layers share weights, such as VeRA.

    Returns:
        peft's tuner; its ``model`` is the backbone.

    Raises:
        MethodError: If the tuner cannot be used with this backbone.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    backbone.requires_grad_(False)
    try:
        with without_advice():
            return PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](backbone, config, adapter_name=ADAPTER)
    except (ValueError, AttributeError, KeyError, AssertionError) as error:
        raise MethodError(
            f"peft cannot put {type(config).__name__.removesuffix('Config')} into this backbone: {error}",
            fix="change the method's options, or the sizes of the backbone",
        ) from error


def merge(module: nn.Module) -> nn.Module:
    """Replaces every layer of peft by a plain one with the same output.

    Args:
        module: What a method of this family built; changed in place.

    Returns:
        The module.

    Raises:
        MethodError: If the tuner has no merged form.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for owner in list(module.modules()):
        if isinstance(owner, BaseTunerLayer):  # its own children are no concern of ours
            continue
        for leaf, child in owner.named_children():
            if isinstance(child, BaseTunerLayer):
                try:
                    child.merge(safe_merge=True)
                except (NotImplementedError, ValueError) as error:
                    raise MethodError(f"{type(child).__name__} of peft cannot be merged: {error}") from error
                setattr(owner, leaf, cast(nn.Module, child.get_base_layer()).requires_grad_(False))
    return module


def refuse_bypassed(backbone: nn.Module, where: Where, fix: str = "use -o where=mlp, or another backbone") -> None:
    """Refuse attentions that read the weight of their first layer without calling it: an adapter would do nothing.

    timm does so where queries and values have biases of their own, as in Swin V2 and in some EVA.

    Args:
        where: What is to be adapted.
        fix: What to do about it.

    Raises:
        MethodError: If the backbone has such an attention and it is to be adapted.
    """
    for name, child in backbone.named_modules():
        own = getattr(child, "q_bias", None) is not None and getattr(child, "qkv", None) is not None
        if where != "mlp" and own and not getattr(child, "qkv_bias_separate", False):
            raise MethodError(
                f"{name} of the backbone uses the weight of its layer qkv without calling the layer, so that no "
                "adapter of the layer can act",
                fix=fix,
            )


class TunerMethod(WithDecoder):
    """An adapter of peft in a frozen backbone; patch embedding and decoder train beside it."""

    family: ClassVar[str] = "peft"
    adapts_linear: ClassVar[bool] = False
    source_code: ClassVar[str] = "HuggingFace peft, the version that is installed"

    where: Where = Field("all", description="adapt the attention, the MLP, or both halves of every block")
    train_patch_embed: bool = Field(True, description=PATCH_EMBED_TEXT)

    def parts(self) -> Sequence[Part]:
        """The adapter, which is what papers count, and what trains beside it."""
        return (
            Part("adapter", lambda name: ADAPTER in name.split(".")),
            Part("LayerNorms", lambda name: bool(NORMS.search(name)), counted=False),
            Part("patch embedding", lambda name: "patch_embed" in name.split("."), counted=False),
        )

    @abstractmethod
    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """What peft is to do, and with which layers of ``backbone``."""

    def adapted(self, task: Task) -> tuple[ViTSegmenter, Any]:
        """The module, in which the adapter and the decoder train, and peft's tuner."""
        module = build_segmenter(task, self.decoder)
        if self.adapts_linear:
            refuse_bypassed(module.backbone, self.where)
        with without_advice():
            config = self.peft_config(module.backbone)
        tuner = inject(module.backbone, config)
        module.backbone.patch_embed.requires_grad_(self.train_patch_embed)
        return module, tuner

    def build(self, task: Task) -> nn.Module:
        """Adapter, patch embedding and decoder train; the frozen weights do not."""
        return self.adapted(task)[0]


class LinearTunerMethod(TunerMethod):
    """An adapter of the linear layers; the LayerNorms train beside it where its source trains them, or if asked for."""

    adapts_linear: ClassVar[bool] = True
    places: ClassVar[str] = "the linear layers of attention and MLP in every block"
    differs: ClassVar[tuple[str, ...]] = (
        "timm has one layer for queries, keys and values, which gets one adapter for the three.",
        EMBED_DIFFERS,
    )

    train_norms: bool = Field(False, description=NORMS_TEXT)

    def adapted(self, task: Task) -> tuple[ViTSegmenter, Any]:
        """The module, in which adapter, norms and decoder train, and peft's tuner."""
        module, tuner = super().adapted(task)
        for child in module.backbone.modules():
            if self.train_norms and isinstance(child, nn.LayerNorm):
                child.requires_grad_(True)
        return module, tuner

    def targets(self, backbone: nn.Module) -> str:
        """The linear layers to adapt."""
        return pattern(block_layers(backbone, nn.Linear, self.where), self.where)
