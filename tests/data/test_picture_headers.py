"""What a header claims, as Pillow and libtiff read it."""

from __future__ import annotations

import io
import struct
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, GifImagePlugin, Image, PngImagePlugin

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from fuzz_bombs import comments, crowded_tags, gif, grey_tiff, jpeg, png, tiff, tiled_tiff, webp

from concept_tuning.data.picture_headers import (
    Excessive,
    Header,
    check_comments,
    check_scans,
    exif_orientation,
    read_header,
)


def header(data: bytes, form: str) -> Header:
    return read_header(io.BytesIO(data), form)


def encoded(form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (31, 17), "red").save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_canvas_is_the_size_of_sound_pictures(form, frames):
    more = [Image.new("RGB", (31, 17), colour) for colour in ("green", "blue")[: frames - 1]]
    assert header(encoded(form, save_all=True, append_images=more), form).canvas == (31, 17)
    assert header(encoded(form, lossless=True), form).canvas == (31, 17)


@pytest.mark.parametrize("form", ["JPEG", "BMP", "PPM", "TIFF"])
def test_nothing_is_claimed_where_pillow_makes_no_room_at_opening(form):
    assert header(encoded(form), form) == Header()


def test_a_gif_canvas_holds_the_screen_and_the_first_frame():
    assert header(gif((300, 20), (10, 500)), "GIF").canvas == (300, 500)
    assert header(gif((300, 20), (10, 10), extensions=comments(2)), "GIF").canvas == (300, 20)
    quirks = b"!\xf9\x00\x02ab\x00" + b"!\xff\x0bNETSCAPE2.0\x00\x01a\x00" + b"zz"
    for extensions in (b"", quirks, b"!\xfe\x00", b"!\xfe\x00" + quirks):
        data = gif((3, 2), (7, 9), extensions=extensions)
        assert header(data, "GIF").canvas == GifImagePlugin.GifImageFile(io.BytesIO(data)).size == (7, 9)


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(13, 60), st.integers(0, 255)), max_size=6), disposal=st.integers(0, 3))
def test_whatever_a_gif_header_holds_its_canvas_is_pillows(changes, disposal):
    data = bytearray(gif((30, 20), (9, 40), disposal=disposal, extensions=b"!\xfe\x02ab\x01c\x00!\xff\x01a\x00"))
    for place, value in changes:
        data[place % len(data)] = value
    size = None
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        size = GifImagePlugin.GifImageFile(io.BytesIO(bytes(data))).size
    assert size in (None, header(bytes(data), "GIF").canvas)


def test_a_gif_frame_that_lies_across_the_end_of_what_is_looked_at_is_no_way_round():
    found = []
    for length in range((1 << 20) - 60, (1 << 20) + 10):
        whole, rest = divmod(length, 256)
        last = bytes([rest - 1]) + bytes(rest - 1) if rest > 1 else b""
        data = gif((2, 2), (5000, 5000), extensions=b"!\xfe" + (b"\xff" + bytes(255)) * whole + last + b"\0")
        try:
            found.append(header(data, "GIF").canvas)
        except Excessive:
            found.append((0, 0))
    assert set(found) == {(5000, 5000), (0, 0)}


def test_the_largest_png_header_counts_up_to_the_pixels():
    assert header(png((4, 4), (70, 80), (9, 9), frame=(2, 2)), "PNG").canvas == (70, 80)
    later = png((4, 4)).replace(b"\0\0\0\0IEND", b"\0\0\0\rIHDR" + struct.pack(">II", 900, 900))
    assert header(later, "PNG").canvas == (4, 4)
    known = PngImagePlugin.PngImageFile(io.BytesIO(png((4, 4), (7, 8))))
    assert known.size == (7, 8)  # which is why


def test_a_webp_canvas_of_any_kind():
    assert header(webp((70_000, 16_000_000)), "WEBP").canvas == (70_000, 16_000_000)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_headers_that_are_cut_off_are_left_to_pillow(form):
    data = {"GIF": gif((3, 2), (7, 9)), "PNG": png((1, 1)), "WEBP": webp((9, 9)), "TIFF": tiled_tiff((1, 1), (5, 5))}
    for length in range(len(data[form])):
        header(data[form][:length], form)


@pytest.mark.parametrize("big", [False, True])
def test_tiles_are_the_largest_that_are_named_in_any_type(big):
    assert header(tiled_tiff((5, 5), (160, 320), big=big), "TIFF").tile == (160, 320)
    tags = [(322, 3, 1, 16), (322, 4, 1, 90_000), (323, 4, 1, 70_000), (323, 1, 1, 5)]
    for order in (tags, tags[::-1]):  # of two of one number, Pillow takes the last and libtiff the first
        assert header(tiff(order, b"", big=big), "TIFF").tile == (90_000, 70_000)


def test_tiles_in_the_other_order_of_bytes():
    entries = struct.pack(">HHHIIHHIHH", 2, 322, 4, 1, 4096, 323, 3, 1, 512, 0) + bytes(4)
    assert header(b"MM\0*" + struct.pack(">I", 8) + entries, "TIFF").tile == (4096, 512)


def test_what_pillow_and_libtiff_read_apart_is_refused():
    with pytest.raises(Excessive, match="big-endian BigTIFF"):
        header(b"MM\0+\0\x08\0\0" + bytes(100), "TIFF")


@pytest.mark.parametrize("big", [False, True])
def test_tags_that_share_their_bytes_are_refused_and_others_are_not(big):
    assert header(grey_tiff((4, 4), (40000, 7, 200_000, 16), data=bytes(200_000), big=big), "TIFF") == Header()
    with pytest.raises(Excessive, match="point to more bytes than there are in the file"):
        header(crowded_tags(3, 100_000, big=big), "TIFF")
    with pytest.raises(Excessive, match="more than 4096 tags"):
        header(crowded_tags(4090, 0, big=big), "TIFF")
    beyond = [(40000 + tag, 7, 1 << 31, 16) for tag in range(20)]  # is not read
    assert header(grey_tiff((4, 4), *beyond, data=bytes(16), big=big), "TIFF") == Header()


@pytest.mark.parametrize(("kind", "count"), [(3, 1_100_000), (5, 70_000), (6, 1_100_000), (12, 1_100_000)])
def test_tags_of_far_too_many_numbers_are_refused(kind, count):
    size = count * {3: 2, 5: 8, 6: 1, 12: 8}[kind]
    with pytest.raises(Excessive, match="too many numbers"):
        header(grey_tiff((4, 4), (282, kind, count, 16), data=bytes(size)), "TIFF")
    assert header(grey_tiff((4, 4), (282, kind, 1000, 16), data=bytes(size)), "TIFF") == Header()


@pytest.mark.parametrize("pointer", [34665, 34853, 40965])
def test_directories_that_are_pointed_to_count_as_well(pointer):
    inner = struct.pack("<H", 40) + b"".join(struct.pack("<HHII", 50000 + tag, 7, 9000, 16) for tag in range(40))
    data = inner + bytes(4 + 9000)
    with pytest.raises(Excessive, match="point to more bytes"):
        header(grey_tiff((4, 4), (pointer, 4, 1, 16), data=data), "TIFF")
    lost = header(grey_tiff((4, 4), (pointer, 4, 1, 2**32 - 1), (322, 4, 1, 77), (323, 4, 1, 9), data=data), "TIFF")
    assert lost.tile == (77, 9)


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


def test_scans_and_comments_are_counted_across_pieces(monkeypatch):
    usual = encoded("JPEG", progressive=True)
    for chunk in (7, 1 << 20):
        monkeypatch.setattr("concept_tuning.data.picture_headers._CHUNK", chunk)
        check_scans(io.BytesIO(usual * 10))
        check_scans(io.BytesIO(b"\xff\xda\xff\xd9" * 1000))  # no heads of scans
        check_scans(io.BytesIO(jpeg(size=(16, 16), scans=190)))
        with pytest.raises(Excessive, match="more than 200 layers"):
            check_scans(io.BytesIO(jpeg(size=(16, 16), scans=205)))
        check_comments(io.BytesIO(b"# a\n1 " * 1000))
        with pytest.raises(Excessive, match="more than 1000 comments"):
            check_comments(io.BytesIO(b"# a\n1 " * 1001))
