"""Galileo's Sentinel-2 path: a vision transformer with a token for every place, date and group of bands.

Architecture and weights: Tseng et al., Galileo, ICML 2025. A group of bands, such as red, green and blue, has filters
of its own; tokens of a group lie together, those of its first date first, row by row. The blocks are timm's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.grouped import GroupedPatchEmbed, GroupedTransformer
from spectral_tl_bench.models.backbones.networks import vit
from spectral_tl_bench.models.backbones.spec import BackboneSpec
from spectral_tl_bench.models.patch_embedding import resampled

GROUPS: Mapping[str, tuple[float, ...]] = {
    "S2_RGB": (0.490, 0.560, 0.665),
    "S2_Red_Edge": (0.705, 0.740, 0.783),
    "S2_NIR_10m": (0.842,),
    "S2_NIR_20m": (0.865,),
    "S2_SWIR": (1.610, 2.190),
}
"""Centre wavelengths in micrometres of the bands of every group, in the order of its filters."""

EMBEDDED = ("S1", *GROUPS, "NDVI")
"""Rows of the table of groups. Radar is not read, nor is NDVI: normalised pixels do not give it."""

BASE_GSD = 10.0
"""Metres that positions are counted in."""

MONTH = 5
"""June, counted from 0: the authors' choice where the month is unknown."""

MOST_DATES = 24

Places = Mapping[str, tuple[tuple[int, ...], ...]]
"""By group: for every date, the channels of its bands."""


def reach(wavelength: float) -> float:
    """Micrometres within which a band counts as one of Sentinel-2's."""
    return 0.03 if wavelength < 1 else 0.06


def places_of(wavelengths: Sequence[float]) -> Places:
    """Which channels the groups read: a group takes part where there is a band for each of its own.

    A band goes to the wavelength of Galileo that is nearest to it, if it is the nearest to that in turn.

    Args:
        wavelengths: In micrometres, one per channel; a time series repeats them.
    """
    dates = next(
        number for number in range(len(wavelengths), 0, -1)
        if tuple(wavelengths) == tuple(wavelengths[: len(wavelengths) // number]) * number
    )  # fmt: skip
    bands = wavelengths[: len(wavelengths) // dates]
    known = [one for group in GROUPS.values() for one in group]
    channel = {}
    for one in known:
        number = min(range(len(bands)), key=lambda k: abs(bands[k] - one))
        if abs(bands[number] - one) <= reach(one) and min(known, key=lambda k: abs(bands[number] - k)) == one:
            channel[one] = number
    return {
        name: tuple(tuple(date * len(bands) + channel[one] for one in group) for date in range(dates))
        for name, group in GROUPS.items() if channel.keys() >= set(group)
    }  # fmt: skip


class GroupFilters(nn.ModuleDict):
    """Filters of every group: images to a grid with the groups and their dates one below the other.

    Pixels z that are normalised to mean 0 and deviation 1 become (z + 2) / 4, which is Galileo's normalisation with the
    source's statistics in the place of its own.

    Args:
        width: Token width D.
        patch: Patch side in pixels.
        places: The channels that are read.
    """

    def __init__(self, width: int, patch: int, places: Places) -> None:
        super().__init__({name: nn.Conv2d(len(dates[0]), width, patch, stride=patch) for name, dates in places.items()})
        self.places = places

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, t * H / patch, W / patch), t the number of groups times that of dates."""
        scaled = (images + 2) / 4
        return torch.cat([self[name](scaled[:, date]) for name, dates in self.places.items() for date in dates], dim=2)


class Galileo(GroupedTransformer):
    """timm's transformer on tokens in groups, of bands and dates.

    To a token is added what it is, in four quarters: its group, which is learned, and its date, month and place, which
    are computed.

    Args:
        gsd: Ground sampling distance in metres; 10 where it is unknown.
        **options: Those of ``VisionTransformer``.
    """

    where: Tensor

    def __init__(self, gsd: float | None, **options: Any) -> None:
        norm = partial(nn.LayerNorm, eps=1e-5)
        super().__init__(class_token=False, pos_embed="none", norm_layer=norm, **options)
        embed = cast(GroupedPatchEmbed, self.patch_embed)
        places, quarter = cast(GroupFilters, embed.proj).places, self.embed_dim // 4
        dates = len(next(iter(places.values())))
        self.seen = [EMBEDDED.index(name) for name in places]
        self.s_t_channel_embed = nn.Parameter(torch.zeros(len(EMBEDDED), quarter))
        where = encodings(dates, embed.grid_size, embed.patch_size[0], gsd, quarter)
        self.register_buffer("where", where.to(self.s_t_channel_embed.device), persistent=False)

    def _pos_embed(self, x: Tensor) -> Tensor:
        group = self.s_t_channel_embed[self.seen][:, None].expand(-1, len(self.where), -1)
        added = torch.cat([group, self.where.expand(len(self.seen), -1, -1)], dim=2)
        return self.pos_drop(x + added.flatten(0, 1))


def encodings(dates: int, grid: tuple[int, int], patch: int, gsd: float | None, width: int) -> Tensor:
    """Date, month and place of the tokens of one group: (dates * h * w, 3 * width), ``width`` for each of the three."""
    month = torch.tensor(2 * math.pi * MONTH / 12, device="cpu").expand(width // 2)
    step = patch * (gsd or BASE_GSD) / BASE_GSD
    rows, columns = (waves(step * torch.arange(side, device="cpu"), width // 2) for side in grid)
    place = torch.cat(
        [columns.expand(grid[0], -1, -1), rows[:, None].expand(-1, grid[1], -1)], dim=2
    ).flatten(0, 1)  # fmt: skip
    date = waves(torch.arange(dates, device="cpu").float(), width)
    return torch.cat(
        [
            date[:, None].expand(-1, len(place), -1),
            torch.cat([month.sin(), month.cos()]).expand(dates, len(place), -1),
            place.expand(dates, -1, -1),
        ],
        dim=2,
    ).flatten(0, 1)


def waves(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions (N,): (N, width). Frequencies fall by 10,000 to the power of k / (2 width)."""
    rates = 10000 ** -(torch.arange(width // 2, device="cpu") / width / 2)
    angles = positions[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def galileo(spec: BackboneSpec, in_chans: int, image_size: int) -> Galileo:
    """Galileo for the bands at ``spec.wavelengths``.

    Raises:
        UserError: If no group has all of its bands there, or the width has no four quarters of sines and cosines.
    """
    places = places_of(spec.wavelengths)
    if not places:
        groups = "; ".join(f"{name}: {', '.join(f'{one:g}' for one in bands)}" for name, bands in GROUPS.items())
        raise UserError(
            f"{spec.name} reads none of these {in_chans} bands: none of its groups is complete",
            expected=f"bands at all wavelengths of a group, within .03 (.06 above 1) micrometres: {groups}",
            fix="choose another --backbone",
        )
    if (dates := len(next(iter(places.values())))) > MOST_DATES:
        raise UserError(f"{spec.name} reads time series of {MOST_DATES} dates at most, these images have {dates}")
    if spec.width % 16:
        raise UserError(f"the width of {spec.name} is {spec.width}", expected="a multiple of 16")

    def embed(img_size: int, patch_size: int, embed_dim: int, **_more: Any) -> GroupedPatchEmbed:
        groups = sum(len(dates) for dates in places.values())
        return GroupedPatchEmbed(img_size, patch_size, groups, GroupFilters(embed_dim, patch_size, places))

    return vit(spec, in_chans, image_size, kind=Galileo, embed_layer=embed, gsd=spec.gsd)


def galileo_names(spec: BackboneSpec, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Galileo's checkpoint: queries, keys and values become one layer, filters get the patch's size.

    Left out is what reads other sensors and tables, and what is computed: positions and months.
    """
    cleaned = {name.replace(".backbone", ""): value for name, value in state.items()}
    used = network.state_dict()
    found: dict[str, Tensor] = {}
    for name, value in cleaned.items():
        owner, _, kind = name.rpartition(".")
        if name.startswith("space_time_embed."):
            new = f"patch_embed.proj.{name.split('.')[1]}.{kind}"
            if new in used:
                found[new] = resampled(value, spec.patch) if kind == "weight" else value
        elif owner.endswith(".attn.q"):
            parts = [cleaned[key] for part in "qkv" if (key := f"{owner[:-1]}{part}.{kind}") in cleaned]
            found[f"{owner[:-1]}qkv.{kind}"] = torch.cat(parts)
        elif not name.startswith(UNREAD) and not owner.endswith((".attn.k", ".attn.v")):
            found[name] = value
    return found


UNREAD = (
    "space_embed.", "time_embed.", "static_embed.", "sp_channel_embed", "t_channel_embed", "st_channel_embed",
    "pos_embed", "month_embed.",
)  # fmt: skip
