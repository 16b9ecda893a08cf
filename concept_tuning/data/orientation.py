"""Which way up a picture is stored, by its EXIF block or XMP, and turning it upright."""

from __future__ import annotations

import struct

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

_ORIENTATION = ExifTags.Base.Orientation


def upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Turn ``pixels`` by the EXIF orientation of ``image``; damaged EXIF data counts as none.

    The orientation alone is handed to Pillow, which would otherwise write the whole EXIF block anew and
    fail on pictures whose block it cannot.
    """
    try:
        orientation = _orientation(image)
    except Exception:  # as for damaged files; the pixels themselves are sound
        return pixels
    if orientation not in range(2, 9):
        return pixels
    turned = Image.fromarray(pixels)
    turned.getexif()[_ORIENTATION] = orientation
    return np.array(ImageOps.exif_transpose(turned))


def _orientation(image: Image.Image) -> object:
    """Return the orientation by the EXIF block, or else by XMP; Pillow has turned TIFF pictures already."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    block, text = image.info.pop("exif", None), image.info.pop("Raw profile type exif", None)
    if block is None and text is not None:
        block = bytes.fromhex("".join(text.split("\n")[3:]))
    found = None if block is None else exif_orientation(block)
    return image.getexif().get(_ORIENTATION) if found is None else found


def exif_orientation(block: bytes) -> int | None:
    """Return the orientation that an EXIF block gives, and None where it is damaged or gives none.

    Pillow would copy what each tag of it points to, which may be the whole block each time.
    """
    start, found = 0, None
    while block.startswith(b"Exif\0\0", start):
        start += 6
    order = {b"II": "<", b"MM": ">"}.get(block[start : start + 2])
    if order is None:
        return None
    try:
        (place,) = struct.unpack_from(f"{order}I", block, start + 4)
        (count,) = struct.unpack_from(f"{order}H", block, start + place)
        for entry in range(start + place + 2, start + place + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", block, entry)
            if tag == _ORIENTATION and (kind, number) in ((3, 1), (3, 2), (4, 1)):
                (found,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), block, entry + 8)
    except struct.error:  # cut off
        pass
    return found
