"""Cuts by place: nothing on both sides, the same again from the same names, near the wanted share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared import slow_but

from spectral_tl_bench.benchmarks import Benchmark, Split, builtin_benchmarks
from spectral_tl_bench.data.index import LOCAL_CRS, ChipIndex, build_index
from spectral_tl_bench.data.splits import cut, make_split
from spectral_tl_bench.errors import DataError

SEEDS = (0, 1, 2)


def chips(
    columns: int, rows: int, *, side: float = 1_000.0, step: float = 1_000.0, domain: str = "east", site: str = "",
    crs: str = "EPSG:32633", origin: tuple[float, float] = (500_000.0, 5_000_000.0), seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Rows of an index: squares on a grid, five classes of which each chip has some."""
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(columns), np.arange(rows)))
    x, y = origin[0] + column * step, origin[1] + row * step
    counts = np.random.default_rng(seed).integers(0, 3, (len(x), 5))
    frame = pd.DataFrame(
        {"domain": domain, "site": site, "crs": crs, "xmin": x, "ymin": y, "xmax": x + side, "ymax": y + side}
    )
    frame["class_counts"] = counts.tolist()
    frame.index = pd.Index([f"{domain}{site}-{origin[0]:.0f}-{n:04d}" for n in range(len(x))], name="chip")
    return frame


def index_of(*frames: pd.DataFrame) -> ChipIndex:
    return ChipIndex(Path(), pd.concat(frames), {}, ())


def definition(**changes: object) -> Benchmark:
    """A benchmark from east to west with the given split."""
    base = builtin_benchmarks()["mts12-n2s"].model_dump()
    base |= {"id": "cut", "domains": [{"id": "east"}, {"id": "west"}], "source": ["east"], "target": ["west"]}
    base["split"] = {"block": 2_000.0, "validation": 0.2}
    return Benchmark.model_validate({**base, **changes})


def shared_ground(frame: pd.DataFrame, one: list[str], other: list[str]) -> float:
    """The largest overlap of a chip of one list with a chip of the other, along the smaller axis, in metres."""
    largest = -np.inf
    for crs in set(frame["crs"]):
        here = frame.loc[frame["crs"] == crs, ["xmin", "ymin", "xmax", "ymax"]]
        a, b = (here[here.index.isin(names)].to_numpy() for names in (one, other))
        if len(a) and len(b):
            low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
            largest = max(largest, float((high - low).min(axis=2).max()))
    return largest


# ------------------------------------------------------------------------------------------- all shipped benchmarks


@pytest.mark.parametrize("seed", slow_but(lambda seed: seed == 0, SEEDS))
@pytest.mark.parametrize("name", builtin_benchmarks())
def test_shipped_benchmarks_are_cut_without_common_ground(name, seed, indexed):
    benchmark, index = indexed(name)
    split = make_split(benchmark, index, seed)
    train, validation, target = (split.chips(role) for role in ("train", "validation", "target"))
    assert train and validation and target
    assert sorted([*train, *validation, *target, *split.chips("buffer")]) == sorted(index.frame.index)
    domain = index.frame["domain"]
    assert set(domain[[*train, *validation]]) <= set(benchmark.source)
    assert set(domain[target]) == set(benchmark.target)
    assert shared_ground(index.frame, train, validation) <= 0
    if benchmark.in_domain:
        assert shared_ground(index.frame, train + validation, target) <= 0
    else:
        assert set(target) == set(index.frame.index[domain.isin(benchmark.target)]), "the whole target is tested on"
        assert set(domain[train]) == set(benchmark.source), "every source domain is trained on"


@pytest.mark.parametrize("name", builtin_benchmarks())
def test_shipped_benchmarks_have_all_source_classes_in_training(name, indexed):
    benchmark, index = indexed(name)
    source = index.frame[index.frame["domain"].isin(benchmark.source)]
    present = np.array(source["class_counts"].tolist()).sum(axis=0) > 0
    for seed in SEEDS:
        split = make_split(benchmark, index, seed)
        trained = np.array(index.frame.loc[split.chips("train"), "class_counts"].tolist()).sum(axis=0) > 0
        np.testing.assert_array_equal(trained, present)


@pytest.mark.parametrize("name", ["whuohs-id", "dfc2020-id", "mts12-id"])
def test_in_domain_test_part_is_the_same_ground_for_every_seed(name, indexed):
    benchmark, index = indexed(name)
    splits = [make_split(benchmark, index, seed) for seed in range(6)]
    assert len({tuple(split.chips("target")) for split in splits}) == 1
    assert len({tuple(split.chips("validation")) for split in splits}) > 1


# ------------------------------------------------------------------------------------------- reproducible from names


def test_the_same_seed_gives_the_same_cut_whatever_the_order_of_the_chips():
    benchmark, east, west = definition(), chips(20, 20), chips(5, 5, domain="west", crs="EPSG:32634")
    first = make_split(benchmark, index_of(east, west), 3)
    again = make_split(benchmark, index_of(east, west), 3)
    pd.testing.assert_series_equal(first.role, again.role)
    assert first.hash == again.hash and first.notes == again.notes
    assert first.chips("train") == sorted(first.chips("train"))


def test_seeds_differ_and_zero_is_one_of_them():
    towns = [chips(7, 7, origin=(500_000.0 + 100_000 * n, 5_000_000.0), seed=n) for n in range(4)]
    benchmark, index = definition(), index_of(*towns, chips(5, 5, domain="west"))
    cuts = {seed: tuple(make_split(benchmark, index, seed).chips("validation")) for seed in range(5)}
    assert len(set(cuts.values())) == 5
    other = definition(id="other")
    assert tuple(make_split(other, index, 0).chips("validation")) != cuts[0], "the benchmark's name is a seed too"


def test_the_hash_changes_when_one_chip_changes_its_role():
    split = make_split(definition(), index_of(chips(10, 10), chips(2, 2, domain="west")), 0)
    before, one = split.hash, split.chips("train")[0]
    shuffled = split.role.sample(frac=1, random_state=1)
    assert type(split)(shuffled, ()).hash == before
    shuffled[one] = "buffer"
    assert type(split)(shuffled, ()).hash != before


# ------------------------------------------------------------------------------------------- shares and distances


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_validation_gets_about_the_wanted_share_and_stands_apart(share):
    frame = chips(24, 24)
    for seed in SEEDS:
        chosen, dropped = cut(frame, Split(block=2_000.0, validation=share), share, seed)
        assert abs(chosen.mean() - share) < 0.05
        assert 0 < dropped.mean() < 0.3
        train = list(frame.index[~chosen & ~dropped])
        assert shared_ground(frame, train, list(frame.index[chosen])) <= -2_000.0, "one block lies between them"


def test_sites_get_about_the_wanted_share():
    frame = pd.concat([chips(2, 2 + n % 3, site=f"s{n}", origin=(1e4 * n, 0)) for n in range(30)])
    for seed in SEEDS:
        chosen, dropped = cut(frame, Split(place="site"), 0.3, seed)
        assert abs(chosen.mean() - 0.3) < 0.05 and not dropped.any()
        assert not set(frame["site"][chosen]) & set(frame["site"][~chosen])


def test_in_domain_test_share():
    frame = chips(24, 24)
    benchmark = definition(gap="none", target=["east"], split={"block": 2_000.0, "validation": 0.15, "test": 0.3})
    split = make_split(benchmark, index_of(frame), 0)
    assert abs(len(split.chips("target")) / len(frame) - 0.3) < 0.05
    assert shared_ground(frame, split.chips("train") + split.chips("validation"), split.chips("target")) <= -2_000.0


# ------------------------------------------------------------------------------------------- what must not be divided


def sides(frame: pd.DataFrame, split: Split, seed: int) -> tuple[list[str], list[str]]:
    chosen, dropped = cut(frame, split, 0.3, seed)
    assert not (chosen & dropped).any()
    return list(frame.index[~chosen & ~dropped]), list(frame.index[chosen])


@pytest.mark.parametrize("block", [300.0, 1_000.0, 3_000.0])
def test_overlapping_chips_are_never_divided_however_small_the_blocks(block):
    frame = chips(15, 15, side=2_000.0, step=500.0)
    for seed in SEEDS:
        assert shared_ground(frame, *sides(frame, Split(block=block), seed)) <= 0


def test_chips_of_two_domains_on_the_same_ground_are_never_divided():
    spring = chips(10, 10, domain="spring")
    autumn = chips(10, 10, domain="autumn", origin=(500_500.0, 5_000_500.0), seed=1)
    frame = pd.concat([spring, autumn])
    for seed in SEEDS:
        assert shared_ground(frame, *sides(frame, Split(block=1_000.0), seed)) <= 0


def test_overlapping_sites_are_never_divided():
    frame = pd.concat([chips(2, 2, site=f"s{n}", origin=(1_500.0 * n, 0.0), seed=n) for n in range(12)])
    for seed in SEEDS:
        assert shared_ground(frame, *sides(frame, Split(place="site"), seed)) <= 0


def test_a_site_is_not_divided_by_a_cut_in_blocks_either():
    frame = pd.concat(
        [chips(4, 1, site=f"s{n}", origin=(4_000.0 * (n % 4), 1_000.0 * (n // 4)), seed=n) for n in range(32)]
    )
    for seed in SEEDS:
        train, validation = sides(frame, Split(block=1_000.0), seed)
        assert not set(frame.loc[train, "site"]) & set(frame.loc[validation, "site"])


def test_neighbours_that_only_touch_are_not_counted_as_overlapping():
    frame = chips(2, 8, side=1_000.0 + 1e-7)
    train, validation = sides(frame, Split(block=1_000.0), 0)
    assert len(train) + len(validation) >= 12, "a rounding error must not cost chips"


def test_chips_without_a_place_are_cut_by_site_or_else_chip_by_chip():
    frame = chips(6, 4).assign(crs=LOCAL_CRS)
    train, validation = sides(frame, Split(block=5_120.0), 0)
    assert len(train) + len(validation) == 24 and 5 <= len(validation) <= 9
    sited = frame.assign(site=[f"s{n // 4}" for n in range(24)])
    train, validation = sides(sited, Split(block=5_120.0), 0)
    assert not set(sited.loc[train, "site"]) & set(sited.loc[validation, "site"])


# ------------------------------------------------------------------------------------------- sources that cannot be cut


def test_a_source_of_one_site_is_refused(own):
    for row in own.rows[:6]:
        row["place"] = "only"
    own.write_table()
    benchmark = own.benchmark()
    with pytest.raises(DataError, match=r"all 6 source chips are of one site \(only\)"):
        make_split(benchmark, build_index(benchmark, own.root), 0)


def test_a_source_in_one_block_is_refused_and_the_block_named():
    with pytest.raises(DataError, match="lie in one block of 50000 m") as caught:
        cut(chips(3, 3, origin=(500_000.0, 5_000_000.0)), Split(block=50_000.0), 0.2, 0)
    assert "split.block smaller" in str(caught.value)


def test_a_source_of_one_chip_is_refused():
    with pytest.raises(DataError, match="at two places"):
        cut(chips(1, 1), Split(), 0.2, 0)


def test_a_source_whose_chips_all_overlap_is_refused():
    with pytest.raises(DataError, match="no cut by place leaves chips on both sides"):
        cut(chips(3, 1, side=5_000.0, step=1_000.0), Split(block=500.0), 0.3, 0)


def test_own_sites_are_not_divided(own):
    benchmark = own.benchmark()
    index = build_index(benchmark, own.root)
    for seed in range(6):
        split = make_split(benchmark, index, seed)
        site = index.frame["site"]
        assert len(split.chips("validation")) == 2 and len(split.chips("train")) == 4
        assert not set(site[split.chips("train")]) & set(site[split.chips("validation")])
        assert split.chips("target") == ["w0_0", "w0_1", "w1_0", "w1_1"]
