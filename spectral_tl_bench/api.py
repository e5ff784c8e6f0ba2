"""What a script or a notebook uses: trained networks and their maps. Nothing heavy is imported before it is used."""

from spectral_tl_bench.maps.model import LoadedModel, load_model
from spectral_tl_bench.maps.predict import MapOptions, SceneMap, predict
from spectral_tl_bench.maps.scene import SceneOptions

__all__ = ["LoadedModel", "MapOptions", "SceneMap", "SceneOptions", "load_model", "predict"]
