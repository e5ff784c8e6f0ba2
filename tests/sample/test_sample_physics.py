"""What the sample's pixels mean: spectra follow physics, and leaving one's domain costs accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import ndimage
from scipy.io import loadmat
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from spectral_tl_bench.files import seed_from
from spectral_tl_bench.sample import write_dfc2020, write_mts12, write_whu_ohs
from spectral_tl_bench.sample.covers import COVERS
from spectral_tl_bench.sample.dfc2020 import CITIES
from spectral_tl_bench.sample.sensors import SENTINEL2_L1C, SENTINEL2_SIX, WHU_OHS, Sky, atmosphere
from spectral_tl_bench.sample.spectra import MATERIALS, WAVELENGTHS, Tint, material_table
from spectral_tl_bench.sample.terrain import FIELDS


def at(micrometres: float) -> int:
    return int(np.abs(WAVELENGTHS - micrometres).argmin())


# ------------------------------------------------------------------------------------------------- spectra


@pytest.mark.parametrize("name", ["broadleaf", "conifer", "crop", "grass", "shrub", "reed"])
def test_leaves_have_a_red_edge_and_water_bands(name):
    spectrum = material_table(Tint())[MATERIALS.index(name)]
    assert spectrum[at(0.80)] > 3 * spectrum[at(0.67)], "near infrared far above red"
    assert spectrum[at(0.55)] > spectrum[at(0.67)], "green peak"
    steepest = WAVELENGTHS[at(0.66) : at(0.78)][np.diff(spectrum[at(0.66) : at(0.78) + 1]).argmax()]
    assert 0.69 < steepest < 0.73, "red edge"
    assert spectrum[at(1.94)] < spectrum[at(1.45)] < spectrum[at(1.65)] < spectrum[at(0.85)]


def test_fading_leaves_lose_their_green_and_the_edge_moves_to_shorter_waves():
    full, faded = (material_table(Tint(vigour=v))[MATERIALS.index("broadleaf")] for v in (1.0, 0.3))
    assert faded[at(0.67)] > 1.5 * full[at(0.67)]
    half = [WAVELENGTHS[at(0.68) :][(s[at(0.68) :] > s[at(0.80)] / 2).argmax()] for s in (full, faded)]
    assert half[1] < half[0]


@pytest.mark.parametrize("name", ["clear", "ocean", "turbid", "algae"])
def test_water_is_black_beyond_the_visible(name):
    spectrum = material_table(Tint())[MATERIALS.index(name)]
    assert spectrum[at(0.9) :].max() < 0.01
    assert spectrum[at(0.9)] < 0.3 * spectrum[at(0.55)]


def test_clear_water_falls_from_the_blue_and_soil_rises_and_darkens_when_wet():
    dry, wet = material_table(Tint(moisture=0.0)), material_table(Tint(moisture=1.0))
    ocean = dry[MATERIALS.index("ocean")]
    assert ocean[at(0.44)] > ocean[at(0.56)] > ocean[at(0.67)] > ocean[at(0.85)]
    soil = dry[MATERIALS.index("soil")]
    assert soil[at(0.45)] < soil[at(0.65)] < soil[at(0.85)] < soil[at(1.6)]
    assert np.all(wet[MATERIALS.index("soil")] < soil)


def test_all_materials_are_reflectances():
    for tint in (Tint(), Tint(1.3, 1.0, 0.0, 1.0, 0.0), Tint(0.7, 0.0, 1.0, 0.0, 1.0)):
        table = material_table(tint)
        assert table.shape == (len(MATERIALS), len(WAVELENGTHS))
        assert table.min() > 0 and table.max() < 1


def test_bands_are_weighted_means_around_their_centres():
    for sensor in (WHU_OHS, SENTINEL2_L1C, SENTINEL2_SIX):
        response = sensor.response()
        np.testing.assert_allclose(response.sum(axis=0), 1.0)
        np.testing.assert_allclose(WAVELENGTHS @ response, sensor.centres, atol=1e-3)


def test_air_brightens_the_blue_most_and_closes_the_cirrus_band():
    path, passing = atmosphere(SENTINEL2_L1C, Sky(haze=0.5))
    visible = [0, 1, 2, 3, 7]
    assert np.all(np.diff(path[visible]) < 0)
    assert passing[10] < 0.1 and passing[[1, 2, 3, 7, 11]].min() > 0.8
    surface_path, surface_passing = atmosphere(SENTINEL2_SIX, Sky(haze=0.0))
    assert np.all(surface_path == 0)
    np.testing.assert_allclose(surface_passing, 1.0)


def test_covers_use_known_materials_and_fields():
    for cover in COVERS.values():
        assert set(cover.ground) | {cover.leaf} <= set(MATERIALS)
        assert set(cover.likes) <= set(FIELDS)


# -------------------------------------------------------------------------------------- pixels, then the gap


AROUND = 9
"""Side in pixels of what a neighbourhood's mean is taken over."""


class Pixels:
    """A random subsample of labelled pixels: spectra, means around them, raw labels, and the place of each."""

    def __init__(self, pairs: list[tuple[Path, Path]], void: set[int], block: float, number: int = 150) -> None:
        spectra, around, labels, cities, corners = [], [], [], [], []
        for image_path, label_path in pairs:
            with rasterio.open(image_path) as image:
                bands = image.read().astype(float)
                corners += [(image.bounds.left, -image.bounds.top)] * number
                cities += [f"{image_path.parent.name} {image_path.name[:2]}"] * number
            if label_path.suffix == ".mat":
                raw = loadmat(label_path)["label"].ravel()
            else:
                raw = rasterio.open(label_path).read(1).ravel()
            rng = np.random.default_rng(seed_from(image_path.name))
            chosen = rng.choice(np.flatnonzero(~np.isin(raw, list(void))), number, replace=False)
            spectra.append(bands.reshape(len(bands), -1).T[chosen])
            means = ndimage.uniform_filter(bands, (0, AROUND, AROUND), mode="reflect")
            around.append(means.reshape(len(bands), -1).T[chosen])
            labels.append(raw[chosen])
        self.spectra, self.around, self.labels = map(np.concatenate, (spectra, around, labels))
        where, city = np.asarray(corners), np.asarray(cities)
        blocks = np.empty(where.shape, dtype=int)
        for name in np.unique(city):
            here = city == name
            blocks[here] = (where[here] - where[here].min(axis=0)) // block
        self.places = np.asarray([f"{name} {x} {y}" for name, (x, y) in zip(city, blocks, strict=True)])

    def typical(self, label: int) -> np.ndarray:
        """The median spectrum of a class: small chips have many mixed pixels at edges, which would pull a mean."""
        return np.median(self.spectra[self.labels == label], axis=0)


def predict(train_x, train_y, test_x):
    """A Gaussian per class, shrunk towards a sphere: strong for single pixels, and fitted at once."""
    scaler = StandardScaler().fit(train_x)
    enough = np.isin(train_y, [label for label in np.unique(train_y) if (train_y == label).sum() > 8])
    model = QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.02)
    return model.fit(scaler.transform(train_x[enough]), train_y[enough]).predict(scaler.transform(test_x))


def miou(truth, guess):
    labels = np.unique(truth)
    return float(np.mean([((truth == k) & (guess == k)).sum() / ((truth == k) | (guess == k)).sum() for k in labels]))


def at_home(pixels: Pixels, what: str = "around", folds: int = 4) -> float:
    """mIoU at other places of the same domain, from means around pixels or from their own ``spectra``."""
    values = getattr(pixels, what)
    places = np.random.default_rng(0).permutation(np.unique(pixels.places))
    guess = np.zeros_like(pixels.labels)
    for fold in range(folds):
        away = np.isin(pixels.places, places[fold::folds])
        guess[away] = predict(values[~away], pixels.labels[~away], values[away])
    return miou(pixels.labels, guess)


def abroad(source: Pixels, target: Pixels) -> tuple[float, float]:
    """mIoU in another domain, and the mIoU of always answering the source's commonest class there."""
    shared = np.isin(target.labels, np.unique(source.labels))
    truth = target.labels[shared]
    guess = predict(source.around, source.labels, target.around[shared])
    labels, counts = np.unique(source.labels, return_counts=True)
    return miou(truth, guess), miou(truth, np.full_like(truth, labels[counts.argmax()]))


@pytest.fixture(scope="module")
def whu(tmp_path_factory):
    root = tmp_path_factory.mktemp("whu")
    write_whu_ohs(root, chip=64, chips_per_city=4)
    result = {}
    for side in ("source", "target"):
        images = sorted((root / "transfer-STall" / side / "image").glob("*.tif"))
        pairs = [(path, path.parents[1] / "label" / path.name) for path in images]
        result[side] = Pixels(pairs, {0, 18, 20}, 10_240.0)
    return result


@pytest.fixture(scope="module")
def dfc(tmp_path_factory):
    root = tmp_path_factory.mktemp("dfc")
    write_dfc2020(root, chip=64, chips_per_city=8)
    result = {}
    for season in ("spring", "summer", "autumn", "winter"):
        pairs = []
        for path in sorted((root / season / "image").glob("*/*.tif")):
            folder = root / season / "label" / path.parent.name.replace("s2_", "dfc_")
            pairs.append((path, folder / path.name.replace("_s2_", "_dfc_")))
        result[season] = Pixels(pairs, {0, 3, 8}, 6_400.0)
    return result


@pytest.fixture(scope="module")
def mts(tmp_path_factory):
    root = tmp_path_factory.mktemp("mts")
    write_mts12(root, chip=64, north=24, south=20)
    result = {}
    for side, folds in (("north", ("train", "val")), ("south", ("test",))):
        images = [path for fold in folds for path in sorted((root / "image" / fold).glob("*.tif"))]
        pairs = [(path, root / "label" / path.parent.name / f"{path.stem}_label.mat") for path in images]
        result[side] = Pixels(pairs, {0}, 15_000.0)
    return result


def test_whu_pixels_follow_physics(whu):
    for pixels in whu.values():
        wood, ocean, river = pixels.typical(3), pixels.typical(24), pixels.typical(10)
        assert wood[22] > 2 * wood[13], "806 nm over 670 nm"
        assert min(ocean[0], ocean[6]) > ocean[13] > ocean[25], "falls to the red; mud makes some coasts green"
        assert river[25] < 0.6 * river[7]
        assert pixels.typical(22)[25] > pixels.typical(22)[0], "soil rises"


def test_dfc_pixels_follow_physics(dfc):
    for pixels in dfc.values():
        forest, water = pixels.typical(1), pixels.typical(10)
        assert forest[7] > 1.8 * forest[3]
        assert water[0] > water[3] > water[7] > water[12]
        assert water[7] < 0.5 * forest[7]
        assert pixels.spectra[:, 10].mean() < 0.1 * pixels.spectra[:, 1].mean(), "B10 is dark"
        assert pixels.spectra[:, 9].mean() < pixels.spectra[:, 8].mean(), "vapour in B9"


def test_mts_pixels_follow_the_year(mts):
    for pixels in mts.values():
        fields, forest = pixels.typical(1).reshape(4, 6), pixels.typical(2).reshape(4, 6)
        ndvi = (forest[:, 3] - forest[:, 2]) / (forest[:, 3] + forest[:, 2])
        assert ndvi[1] > ndvi[0] and ndvi[1] > ndvi[3], "leaves are out in June"
        bare = (fields[:, 3] - fields[:, 2]) / (fields[:, 3] + fields[:, 2])
        assert bare[1] > bare[3], "crops stand in June"


def test_whu_gap(whu):
    home, (away, majority) = at_home(whu["source"]), abroad(whu["source"], whu["target"])
    assert home > 1.2 * at_home(whu["source"], "spectra"), "neighbours tell what a pixel cannot"
    assert away < 0.95 * home
    assert away > 2 * majority


def test_dfc_gap(dfc):
    homes, aways = [], []
    for season in dfc:
        home = at_home(dfc[season])
        scores = [abroad(dfc[season], dfc[other]) for other in dfc if other != season]
        assert home > 1.1 * at_home(dfc[season], "spectra"), "neighbours tell what a pixel cannot"
        assert np.mean([away - majority for away, majority in scores]) > 0.05
        homes.append(home)
        aways += [away for away, _ in scores]
    assert np.mean(aways) < np.mean(homes) - 0.05


@pytest.mark.parametrize(("source", "target"), [("north", "south"), ("south", "north")])
def test_mts_gap(mts, source, target):
    home, (away, majority) = at_home(mts[source]), abroad(mts[source], mts[target])
    assert home > 1.2 * at_home(mts[source], "spectra"), "neighbours tell what a pixel cannot"
    assert away < home - 0.04
    assert away > majority + 0.15


def test_cities_of_one_season_differ():
    views = [city.view for city in CITIES.values()]
    assert len({view.season.day for view in views}) == len(views)
