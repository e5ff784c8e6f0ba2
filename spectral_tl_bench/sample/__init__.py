"""The bundled sample: synthetic scenes in the layouts and names of WHU-OHS, DFC2020 and MTS12.

All of it is computed from simple physics (see `spectra`, `sensors`, `phenology`, `terrain` and `scene`), so the
whole suite can be tried and tested without any download.
"""

from spectral_tl_bench.sample.build import ensure_sample, write_sample
from spectral_tl_bench.sample.dfc2020 import write_dfc2020
from spectral_tl_bench.sample.mts12 import write_mts12
from spectral_tl_bench.sample.whuohs import write_whu_ohs

__all__ = ["ensure_sample", "write_dfc2020", "write_mts12", "write_sample", "write_whu_ohs"]
