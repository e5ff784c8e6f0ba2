"""Writes checkpoint files as the authors' release does: its module tree and its files, in small.

The modules have the names and shapes of the release's, and no forward pass. ``python tests/spectralx/write_release.py
FOLDER`` writes a file of each family and stage.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """Of the release's model; ``LARGE`` are the published ones."""

    width: int = 128
    depth: int = 4
    patch: int = 8
    image: int = 32
    bands: int = 5
    rows: int = 7  # of the head: six classes and class 0
    channels: int = 32
    stem: tuple[int, ...] = (16, 32, 64)
    decoder: int = 64

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(self.depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))


MINI = Sizes()
LARGE = Sizes(1024, 24, 16, 224, 13, 10, 512, (64, 128, 256, 512), 512)


def tree(**parts: Any) -> nn.Module:
    """A module with parts by name; a dot becomes a level."""
    module = nn.Module()
    for name, part in parts.items():
        if isinstance(part, nn.Parameter):
            module.register_parameter(name, part)
        else:
            setattr(module, name, part)
    return module


def numbers(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.1)


def mixture(layer_in: int, layer_out: int) -> dict[str, Any]:
    half = layer_in // 2
    thin, hidden = half // 4, max(1, half // 32)
    experts = nn.ModuleList(tree(fc1=nn.Linear(thin, hidden), fc2=nn.Linear(hidden, thin)) for _ in range(4))
    gate = tree(w_gate=numbers(2, thin, 4), w_noise=numbers(2, thin, 4), experts=experts)
    gate.register_buffer("mean", torch.tensor([0.0]))
    gate.register_buffer("std", torch.tensor([1.0]))
    blocks = tree(
        norm1=nn.LayerNorm(half), dimReduction=nn.Linear(half, thin, bias=False), norm2=nn.LayerNorm(thin), MoA=gate,
        dimIncrease=nn.Linear(thin, layer_out // 2, bias=False),
    )  # fmt: skip
    return {"linear": nn.Linear(layer_in, layer_out), "scaler": numbers(layer_out), "blocks_MoA": blocks}


class KMaskedLinear(nn.Linear):
    """Meta's layer of queries, keys and values: a buffer silences the bias of the keys."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width)
        self.bias = nn.Parameter(torch.zeros(3 * width))
        mask = torch.ones(3 * width)
        mask[width : 2 * width] = 0
        self.register_buffer("bias_mask", mask)


def block(width: int, experts: bool, dino: bool = False) -> nn.Module:
    if experts:
        mlp = tree(fc1=tree(**mixture(width, 4 * width)), fc2=tree(**mixture(4 * width, width)))
    else:
        mlp = tree(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width))
    qkv = KMaskedLinear(width) if dino else nn.Linear(width, 3 * width)
    scales = {f"ls{i}": tree(gamma=numbers(width)) for i in (1, 2)} if dino else {}
    attn = tree(qkv=qkv, proj=nn.Linear(width, width))
    return tree(norm1=nn.LayerNorm(width), attn=attn, norm2=nn.LayerNorm(width), mlp=mlp, **scales)


def cross(media: int, latent: int) -> nn.Module:
    inner = media // 2
    return tree(
        norm_media=nn.LayerNorm(media), norm_latents=nn.LayerNorm(latent), to_q=nn.Linear(latent, inner, bias=False),
        to_kv=nn.Linear(media, 2 * inner, bias=False), to_out=nn.Linear(inner, latent, bias=False),
    )  # fmt: skip


def tokenizer(s: Sizes) -> nn.Module:
    first, *_ = widths = s.stem
    steps: dict[str, nn.Module] = {"conv1": nn.Conv2d(s.bands, first, 1)}
    for i, (narrow, wide) in enumerate(pairwise(widths[:-1])):
        steps[f"module{2 * i + 1}"] = nn.Sequential(
            nn.Conv2d(narrow, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.GELU()
        )
        steps[f"module{2 * i + 2}"] = nn.Sequential(nn.Conv2d(narrow, wide, 2, 2), nn.BatchNorm2d(wide))
    steps["conv2"] = nn.Conv2d(widths[-2], widths[-1], 3, 2, 1)
    places, half = 4 * s.tokens, s.width // 2
    return tree(
        downsample_module=tree(**steps),
        spa_semantic_module=nn.ModuleList([block(widths[-1], experts=False)]),
        spe_semantic_module=nn.ModuleList([block(places, experts=False)]),
        spa_query=numbers(s.tokens, half),
        spe_query=numbers(s.tokens, half),
        spa_match_attn=cross(widths[-1], half),
        spe_match_attn=cross(places, half),
        match_ff=nn.Sequential(
            nn.LayerNorm(s.width), nn.Linear(s.width, 4 * s.width, bias=False), nn.GELU(),
            nn.Linear(4 * s.width, s.width, bias=False),
        ),
    )  # fmt: skip


def transformer(s: Sizes, family: str) -> nn.Module:
    dino = family == "dinov3"
    second = {16: 4, 8: 2}[s.patch]
    rank = 16
    proj = tree(
        proj=tokenizer(s),
        down=nn.Conv2d(s.bands, rank, s.patch // second, s.patch // second),
        up=nn.Conv2d(rank, s.width, second, second),
        scaler=numbers(s.width),
    )
    vit = tree(
        cls_token=numbers(1, 1, s.width),
        patch_embed=tree(proj=proj),
        blocks=nn.ModuleList(block(s.width, i in s.levels, dino) for i in range(s.depth)),
        norm=nn.LayerNorm(s.width),
    )
    if dino:
        vit.register_parameter("storage_tokens", numbers(1, 4, s.width))
        vit.register_parameter("mask_token", numbers(1, s.width))
        vit.rope_embed = nn.Module()
        vit.rope_embed.register_buffer("periods", torch.ones(16))
        vit.local_cls_norm = nn.LayerNorm(s.width)
    else:
        vit.register_parameter("pos_embed", numbers(1, 1 + s.tokens, s.width))
    return vit


def add_decoder(vit: nn.Module, s: Sizes, family: str) -> None:
    """The pretraining's own decoder, with AoMoA where the release puts it."""
    d = s.decoder
    vit.decoder_embed = tree(**mixture(s.width, d))
    vit.register_parameter("mask_token", numbers(1, 1, d))
    vit.register_parameter("decoder_pos_embed", nn.Parameter(torch.zeros(1, s.tokens + 1, d), requires_grad=False))
    vit.decoder_norm = nn.LayerNorm(d)
    vit.decoder_blocks = nn.ModuleList(block(d, experts=True) for _ in range(3 if family == "scalemae" else 8))
    bands = s.bands
    if family == "satmaepp":
        vit.decoder_pred = tree(**mixture(d, s.patch**2 * bands))
        vit.proj_up_conv = nn.Conv2d(bands, 4 * bands, 1)
        vit.proj_up_norm = nn.LayerNorm(4 * bands)
        vit.up_block = tree(
            up_conv=nn.ConvTranspose2d(4 * bands, bands, 4, 2, 1), up_norm=nn.LayerNorm(bands),
            res_block=tree(conv1=nn.Conv2d(bands, bands, 3), conv2=nn.Conv2d(bands, bands, 3)),
            res_norm=nn.LayerNorm(bands), proj_out=nn.Conv2d(bands, bands, 1),
        )  # fmt: skip
        return
    vit.register_parameter("mask_token_decoder", numbers(1, 1, d))

    def conv() -> nn.Module:
        return nn.Conv2d(d, d, 1)

    up = nn.ConvTranspose2d(d, d, 2, 2)
    vit.fpn = tree(
        fpn1=nn.Sequential(up, tree(ln=nn.LayerNorm(d)), nn.GELU(), nn.ConvTranspose2d(d, d, 2, 2)),
        fpn2=nn.Sequential(nn.ConvTranspose2d(d, d, 2, 2)),
    )
    for name in ("fcn_high", "fcn_low"):
        blocks = [
            tree(convs=nn.Sequential(nn.GELU(), conv(), nn.GELU(), conv()), residual=conv()) for _ in range(2)
        ]  # fmt: skip
        pred = nn.Sequential(tree(ln=nn.LayerNorm(d)), conv(), nn.GELU(), conv(), nn.GELU(), conv(), nn.GELU(), conv())
        setattr(vit, name, tree(proj=conv(), conv_blocks=nn.ModuleList(blocks), pred=pred))


def conv_bn(inputs: int, outputs: int, side: int) -> nn.Module:
    return tree(conv=nn.Conv2d(inputs, outputs, side, bias=False), bn=nn.BatchNorm2d(outputs, eps=1e-6))


def head(s: Sizes) -> nn.Module:
    w, c = s.width, s.channels
    return tree(
        conv_seg=nn.Conv2d(c, s.rows, 1),
        psp_modules=nn.ModuleList(nn.Sequential(nn.Identity(), conv_bn(w, c, 1)) for _ in range(4)),
        bottleneck=conv_bn(w + 4 * c, c, 3),
        lateral_convs=nn.ModuleList(conv_bn(w, c, 1) for _ in range(3)),
        fpn_convs=nn.ModuleList(conv_bn(c, c, 3) for _ in range(3)),
        fpn_bottleneck=conv_bn(4 * c, c, 3),
    )


def are_adapter(s: Sizes) -> nn.Module:
    half, places, attributes = s.width // 2, 4 * s.tokens, s.stem[-1]
    inner = half // 2
    return tree(
        norm=nn.LayerNorm(half), spa_match_attn=cross(attributes, half), spe_match_attn=cross(places, half),
        spa_mlp=nn.Linear(places, s.tokens), spe_mlp=nn.Linear(attributes, s.tokens),
        refine_spa=nn.Sequential(
            nn.Conv2d(half, inner, 3, 2, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, 1, 1, bias=False), nn.BatchNorm2d(inner),
        ),
        refine_spe=nn.Sequential(nn.Conv1d(attributes, s.tokens, 1, bias=False), nn.BatchNorm1d(s.tokens)),
        scale=nn.Parameter(torch.tensor(0.01)),
    )  # fmt: skip


def task_module(stage: int, family: str, s: Sizes = MINI, deepsup: bool = False) -> nn.Module:
    """What the release trains, as its Lightning module holds it: under ``model``."""
    vit = transformer(s, family)
    if stage == 1:
        add_decoder(vit, s, family)
        return tree(model=vit)
    if family != "dinov3":
        vit.head = nn.Linear(s.width, 10)
    plain = [tree(conv=nn.Conv2d(s.width, s.width, 1)) for _ in range(4)]
    smooth = [tree(conv=nn.Conv2d(s.width, s.width, 3)) for _ in range(4)]
    neck = tree(lateral_convs=nn.ModuleList(plain), convs=nn.ModuleList(smooth))
    wrapper = tree(vit_backbone=vit, AreApt=are_adapter(s), neck=neck, head=head(s), norm=nn.LayerNorm(s.width))
    if deepsup:
        wrapper.aux_head = tree(
            convs=nn.ModuleList([conv_bn(s.width, s.channels, 3)]), conv_seg=nn.Conv2d(s.channels, s.rows, 1)
        )
    return tree(model=wrapper)


MODELS = {"scalemae": "scalemae_large", "satmaepp": "satmaepp_large", "dinov3": "dinov3_vitl16"}


def hyper_parameters(family: str, s: Sizes = MINI) -> dict[str, Any]:
    """All constructor arguments, live objects among them, as ``save_hyperparameters`` keeps them."""
    from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

    live = (ModelCheckpoint(monitor="val_loss", save_last=True), EarlyStopping("val_loss"), LearningRateMonitor())
    return {
        "model": MODELS[family], "model_type": "vit", "in_channels": s.bands, "input_size": s.image,
        "patch_size": s.patch, "adapter_type": "MoA", "adapter_hidden_dim": 16, "callbacks": live,
        "wavelength": [0.45 + 0.1 * band for band in range(s.bands)], "lr": 1e-4, "patience": 10,
    }  # fmt: skip


def content(stage: int, family: str, module: nn.Module, s: Sizes = MINI) -> dict[str, Any]:
    """What the release hands to ``torch.save``: Lightning's dictionary in stage 1, its own in stage 2."""
    import torchmetrics
    from lightning.fabric.utilities.data import AttributeDict

    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(3.0), "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }  # fmt: skip
    state = module.state_dict()
    settings = hyper_parameters(family, s)
    if stage == 2:
        return {
            "epoch": 7, "global_step": 45_000, "state_dict": state, "optimizer_state_dict": optimizer.state_dict(),
            "lr_scheduler_state_dict": None, "trainer_state": state, "hyper_parameters": AttributeDict(settings),
        }  # fmt: skip
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    metric = torchmetrics.JaccardIndex(task="multiclass", num_classes=s.rows)
    return {
        "epoch": 3, "global_step": 25_000, "pytorch-lightning_version": "2.3.0", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.1), "m": metric}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs", "hyper_parameters": settings,
    }  # fmt: skip


def write(folder: Path, stage: int, family: str, s: Sizes = MINI, seed: int = 0, **options: Any) -> Path:
    """A file; returns its path."""
    torch.manual_seed(seed)
    module = task_module(stage, family, s, **options)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith(("running_mean", "running_var", "norm1.bias", "scaler")):  # not what they begin with
                value.add_(torch.rand_like(value))
    path = folder / f"{family}-stage{stage}.ckpt"
    torch.save(content(stage, family, module, s), path)
    return path


FILES = [(1, "scalemae"), (1, "satmaepp"), (2, "scalemae"), (2, "satmaepp"), (2, "dinov3")]
"""Stages and families; DINOv3 has no stage 1."""


def state_of(path: Path) -> dict[str, Tensor]:
    """The tensors as PyTorch itself reads them, live objects and all."""
    return dict(torch.load(path, weights_only=False)["state_dict"])


if __name__ == "__main__":
    for number, name in FILES:
        sys.stdout.write(f"{write(Path(sys.argv[1]), number, name)}\n")
