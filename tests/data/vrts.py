"""VRTs as text, of 16 px at the place of chip ``e0_0``."""

from __future__ import annotations


def source(name: object, relative: int = 0, more: str = "", band: int = 1) -> str:
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>{more}'
        f"<SourceBand>{band}</SourceBand></SimpleSource>"
    )


def vrt(*bands: str, top: str = "", side: int = 16, kind: str = "") -> str:
    """A VRT over bands with the place of chip ``e0_0``."""
    inner = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"{kind}>{band}</VRTRasterBand>'
        for number, band in enumerate(bands, 1)
    )
    return (
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>{top}{inner}</VRTDataset>"
    )


def three(name: object, relative: int = 0) -> str:
    return vrt(*(source(name, relative, band=band) for band in (1, 2, 3)))
