"""What a GeoTIFF says of its CRS, as bytes: files that say the same have the same CRS, which need be made out once."""

from __future__ import annotations

import struct

GEO_TAGS = (34735, 34736, 34737)
"""GeoKeyDirectoryTag, GeoDoubleParamsTag and GeoAsciiParamsTag (OGC GeoTIFF 1.1, 7.1.1)."""
PLACE_TAGS = (33550, 33922, 34264)
"""ModelPixelScaleTag, ModelTiepointTag and ModelTransformationTag: without them a CRS is that of control points."""
_BYTES_OF = {2: 1, 3: 2, 12: 8}
"""Of the types that these tags have: ASCII, SHORT and DOUBLE."""


def geo_keys(head: bytes) -> bytes | None:
    """What the first directory of a GeoTIFF says of its CRS.

    Args:
        head: The first bytes of the file.

    Returns:
        Bytes that are equal for files of equal CRSs; None where not all of it is among the first bytes.
    """
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return None
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    count_of, entry, inline = (("Q", "HHQ8s", 8)) if big else ("H", "HHI4s", 4)
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, inline)
    if start + struct.calcsize(order + count_of) > len(head):
        return None
    (count,) = struct.unpack_from(order + count_of, head, start)
    first, size = start + struct.calcsize(order + count_of), struct.calcsize(order + entry)
    if first + count * size > len(head):
        return None
    said = [order.encode()]
    for tag, kind, number, value in struct.iter_unpack(order + entry, head[first : first + count * size]):
        if tag in PLACE_TAGS:
            said.append(struct.pack("<HQ", tag, number))
        elif tag in GEO_TAGS:
            length = number * _BYTES_OF.get(kind, len(head))
            place = struct.unpack(order + ("Q" if big else "I"), value)[0] if length > inline else 0
            values = head[place : place + length] if length > inline else value[:length]
            if len(values) < length:
                return None
            said.append(struct.pack("<HHQ", tag, kind, number) + values)
    return b"".join(said)
