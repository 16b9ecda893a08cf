"""What the directories of a TIFF file claim, as Pillow and libtiff read them."""

from __future__ import annotations

import io
import struct

import pytest
from fuzz_bombs import far_tile, grey_tiff, named_strips, pointed_tags, same_tiles, tiff, tiled_tiff
from PIL import Image

from concept_tuning.data.picture_headers import Excessive, Header
from concept_tuning.data.tiff_headers import read_tiff_header


def header(data: bytes) -> Header:
    return read_tiff_header(io.BytesIO(data))


@pytest.mark.parametrize("big", [False, True])
def test_tiles_are_told_with_all_that_they_hold(big):
    assert header(tiled_tiff((5, 5), (160, 320), big=big)) == Header(tile=(160, 320), stored=160 * 320)
    assert header(tiled_tiff((161, 641), (160, 320), big=big)).stored == 2 * 3 * 160 * 320
    assert header(same_tiles(50, 1000)) == Header(tile=(1000, 1), stored=50_000)


def test_tiles_in_the_other_order_of_bytes():
    entries = struct.pack(">HHHIIHHIHH", 2, 322, 4, 1, 4096, 323, 3, 1, 512, 0) + bytes(4)
    assert header(b"MM\0*" + struct.pack(">I", 8) + entries).tile == (4096, 512)


@pytest.mark.parametrize("tag", [256, 257, 322, 323, 34665, 34853, 40965])
@pytest.mark.parametrize("big", [False, True])
def test_sizes_and_places_of_directories_are_one_number_each_and_stand_in_their_entry(tag, big):
    data, usual = bytes(300), [(256, 4, 1, 4), (257, 4, 1, 4), (322, 4, 1, 16), (323, 4, 1, 16)]
    others = [one for one in usual if one[0] != tag]
    kinds = (1, 3, 4, 6, 8, 9, 13, *((16, 17, 18) if big else ()))
    for kind in kinds:
        assert header(tiff([*others, (tag, kind, 1, 100)], data, big=big)).tile != (0, 0)
    odd = [(3, 2, 4), (4, 2, 16), (4, 0, 4), (2, 1, 4), (7, 1, 4), (11, 1, 4), (5, 1, 16), (99, 1, 4)]
    odd += [] if big else [(16, 1, 16), (17, 1, 16), (18, 1, 16)]
    for kind, number, value in odd:
        with pytest.raises(Excessive, match=f"its tag {tag} does not hold one number, as it should"):
            header(tiff([*others, (tag, kind, number, value)], data, big=big))
    twice = [(tag, 3, 1, 100), (tag, 4, 1, 90_000)]  # of which Pillow takes the last and libtiff the first
    with pytest.raises(Excessive, match="does not hold one number"):
        header(tiff([*others, *twice], data, big=big))


def test_a_tile_whose_size_stands_beside_the_directory_is_refused():
    with pytest.raises(Excessive, match="its tag 322 does not"):
        header(far_tile((16, 16), (12_000, 12_000)))


@pytest.mark.parametrize(("kind", "count"), [(3, 1_100_000), (5, 70_000), (6, 1_100_000), (12, 1_100_000)])
def test_tags_of_far_too_many_numbers_are_refused(kind, count):
    size = count * {3: 2, 5: 8, 6: 1, 12: 8}[kind]
    with pytest.raises(Excessive, match="too many numbers"):
        header(grey_tiff((4, 4), (282, kind, count, 16), data=bytes(size)))
    assert header(grey_tiff((4, 4), (282, kind, 1000, 16), data=bytes(size))) == Header()


@pytest.mark.parametrize("pointer", [34665, 34853, 40965])
def test_directories_that_are_pointed_to_count_as_well(pointer):
    inner = struct.pack("<H", 40) + b"".join(struct.pack("<HHII", 50000 + tag, 7, 9000, 16) for tag in range(40))
    data = inner + bytes(4 + 9000)
    with pytest.raises(Excessive, match="point to more bytes"):
        header(grey_tiff((4, 4), (pointer, 4, 1, 16), data=data))
    for lost in (2**32 - 1, 16 + len(data) + 10_000):
        tags = [(pointer, 4, 1, lost), (322, 4, 1, 77), (323, 4, 1, 9)]
        assert header(grey_tiff((4, 4), *tags, data=data)).tile == (77, 9)
    before_the_file = [(pointer, 9, 1, -5), (322, 4, 1, 77), (323, 4, 1, 9)]
    assert header(grey_tiff((4, 4), *before_the_file, data=data)).tile == (77, 9)


def test_a_directory_that_an_exif_block_points_to_counts_as_well():
    assert header(pointed_tags(3, 100, within=True)) == header(pointed_tags(3, 100)) == Header()
    with pytest.raises(Excessive, match="point to more bytes"):
        header(pointed_tags(40, 9000, within=True))
    inner = struct.pack("<HHHIII", 1, 40965, 3, 2, 16, 0)
    with pytest.raises(Excessive, match="its tag 40965 does not"):
        header(grey_tiff((4, 4), (34665, 4, 1, 16), (40965, 4, 1, 16), data=inner))
    assert header(grey_tiff((4, 4), (34665, 4, 1, 16), data=inner)) == Header()  # Pillow does not look for it


def test_ordinary_exif_blocks_are_let_be():
    exif = Image.Exif()
    exif[271] = "a camera"
    exif.get_ifd(0x8769)[37500] = b"maker" * 500
    exif.get_ifd(0x8769)[40965] = {1: "R98"}
    exif.get_ifd(0x8825)[1] = "N"
    for options in ({}, {"big_tiff": True}):
        stream = io.BytesIO()
        Image.new("RGB", (31, 17)).save(stream, "TIFF", exif=exif.tobytes(), **options)
        assert header(stream.getvalue()) == Header()
        stored = Image.open(stream).getexif()
        assert stored.get_ifd(0x8825) == {1: "N"}
        assert 40965 in stored.get_ifd(0x8769)  # which Pillow has written without what it pointed to


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 7])
def test_strips_are_as_many_as_a_picture_may_have(kind):
    most = 8 * 2 + 4096
    assert header(named_strips(kind, most)) == Header()
    with pytest.raises(Excessive, match="far more strips or tiles than it can have"):
        header(named_strips(kind, most + 1))


def test_tiles_are_as_many_as_a_picture_may_have():
    size = [(256, 4, 1, 100), (257, 4, 1, 50), (322, 4, 1, 16), (323, 4, 1, 16)]
    most = 8 * 7 * 4 + 4096
    assert header(tiff([*size, (324, 1, most, 16)], bytes(most))).tile == (16, 16)
    with pytest.raises(Excessive, match="far more strips or tiles"):
        header(tiff([*size, (324, 1, most + 1, 16)], bytes(most + 1)))


@pytest.mark.parametrize("tag", [273, 324])
def test_no_picture_has_strips_or_tiles_without_end(tag):
    size = [(256, 4, 1, 1), (257, 4, 1, 10**6), (322, 4, 1, 1), (323, 4, 1, 1)]
    header(tiff([*size, (tag, 1, 1 << 18, 16)], bytes(1 << 18)))
    with pytest.raises(Excessive, match="far more strips or tiles"):
        header(tiff([*size, (tag, 1, (1 << 18) + 1, 16)], bytes((1 << 18) + 1)))
