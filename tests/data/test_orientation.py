"""The orientation of an EXIF block, as Pillow finds it; how pictures are turned is tested with the decoder."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from concept_tuning.data.orientation import exif_orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0" * 3])
def test_the_orientation_is_the_one_that_pillow_finds(orientation, order, prefix):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tags = struct.pack(order + "HHHI4s", 2, 271, 2, 3, b"ab\0\0") + struct.pack(
        order + "HHIHH", 274, 3, 1, orientation, 0
    )
    block = prefix + mark + struct.pack(order + "I", 8) + tags + bytes(4)
    exif = Image.Exif()
    exif.load(block)
    assert exif_orientation(block) == orientation == exif[ExifTags.Base.Orientation]


@settings(max_examples=300, deadline=None)
@given(
    block=st.binary(max_size=60), start=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"Exif\0\0II"])
)
def test_no_exif_block_makes_trouble(block, start):
    found = exif_orientation(start + block)
    assert found is None or isinstance(found, int)
