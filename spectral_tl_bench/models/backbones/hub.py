"""Published weights by name, through the calls of the libraries that publish them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.models.backbones.spec import BackboneSpec, Hub
from spectral_tl_bench.storage import CACHE_VARIABLE, WEIGHTS, touch

PATIENCE = 20.0
"""Seconds without an answer after which a server counts as not reachable."""


def locate_hub(spec: BackboneSpec, chosen: str = "") -> tuple[str, Path]:
    """Find the published weights of a backbone, in the library's cache or on its server.

    Args:
        chosen: timm's tag, or the member of TorchGeo's enum; by default that of the backbone.

    Returns:
        The tag or member, and the file.

    Raises:
        UserError: If there are none of this name, or the server cannot be reached.
    """
    if spec.hub is None:
        raise UserError(
            f"no library publishes weights of {spec.name}",
            expected=spec.card.how or None,
            fix="--weights FILE, or --weights none for a random start",
        )
    find = _from_timm if spec.hub.library == "timm" else _from_torchgeo
    return find(spec, spec.hub, chosen or spec.hub.default)


def _moved(*variables: str) -> Path | None:
    """Where to download to if the user has moved the suite's cache and not, by a variable, the library's own."""
    if not os.environ.get(CACHE_VARIABLE) or any(os.environ.get(name) for name in variables):
        return None
    return WEIGHTS.folder


def offline() -> bool:
    """Whether the user has forbidden the hub."""
    import huggingface_hub.constants

    return bool(huggingface_hub.constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "ON")


def _from_timm(spec: BackboneSpec, hub: Hub, tag: str) -> tuple[str, Path]:
    import timm
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    name = f"{hub.collection}.{tag}" if tag else hub.collection
    known = timm.list_models(f"{hub.collection}.*", pretrained=True)
    if tag and name not in known:
        raise UserError(
            f"this timm has no weights {tag!r} for {hub.collection}",
            expected=nearest(tag, [model.partition(".")[2] for model in known]),
            fix="install a newer timm, or use --weights FILE",
        )
    card = get_pretrained_cfg(name)
    if card is None or not card.hf_hub_id:
        raise UserError(f"timm publishes no weights for {hub.collection}", fix="--weights FILE, or --weights none")
    with _reachable(spec, f"{card.hf_hub_id} on the Hugging Face hub, file model.safetensors"):
        own = isinstance(try_to_load_from_cache(card.hf_hub_id, "model.safetensors"), str)
        folder = None if own else _moved("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
        file = hf_hub_download(card.hf_hub_id, "model.safetensors", cache_dir=folder, local_files_only=offline())
    if folder is not None:
        touch(folder / f"models--{card.hf_hub_id.replace('/', '--')}")
    return tag or str(card.tag), Path(file)


def _from_torchgeo(spec: BackboneSpec, hub: Hub, member: str) -> tuple[str, Path]:
    import torch
    import torchgeo.models

    enum: Any = getattr(torchgeo.models, hub.collection, None)
    if enum is None:
        raise UserError(f"this TorchGeo has no {hub.collection}", fix="install a newer TorchGeo")
    if member not in enum.__members__:
        raise UserError(f"{hub.collection} has no weights {member!r}", expected=nearest(member, enum.__members__))
    weights = enum[member]
    path = Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rpartition("/")[2]
    moved = _moved("TORCH_HOME")
    if moved is not None and not path.is_file():
        path = moved / path.name
        touch(path)
    with _reachable(spec, f"TorchGeo's {hub.collection}.{member}, file {path.name}"):
        if not path.is_file():
            if offline():
                raise OSError("HF_HUB_OFFLINE is set, and the file is not in the cache")
            weights.get_state_dict(progress=False, check_hash=True, weights_only=True, model_dir=str(path.parent))
    return member, path


@contextmanager
def _reachable(spec: BackboneSpec, what: str) -> Iterator[None]:
    """Whatever a library raises without a network becomes one message; a silent server is not awaited for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each library, and each version of it, has its own errors for this
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"the weights of {spec.name} cannot be fetched: {type(error).__name__}: {reason}",
            expected=f"{what}, in the cache or reachable",
            fix="get that file where there is a network and use --weights FILE, or --weights none for a random start",
        ) from None
    finally:
        socket.setdefaulttimeout(before)
