"""What a header claims, as Pillow and libtiff read it."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest
from fuzz_bombs import comments, crowded_tags, exif_pieces, gif, grey_tiff, jpeg, png, tiled_tiff, webp
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin

from concept_tuning.data.picture_headers import Excessive, Header, check_comments, check_scans, read_header
from concept_tuning.data.tiff_headers import read_tiff_header


def header(data: bytes, form: str) -> Header:
    stream = io.BytesIO(data)
    return read_tiff_header(stream) if form == "TIFF" else read_header(stream, form)


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


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "JPEG"])
def test_headers_that_are_cut_off_are_left_to_pillow(form):
    data = {"GIF": gif((3, 2), (7, 9)), "PNG": png((1, 1)), "WEBP": webp((9, 9)), "TIFF": tiled_tiff((1, 1), (5, 5))}
    data["JPEG"] = jpeg()
    for length in range(len(data[form])):
        header(data[form][:length], form)


@pytest.mark.parametrize("big", [False, True])
def test_tags_that_share_their_bytes_are_refused_and_others_are_not(big):
    assert header(grey_tiff((4, 4), (40000, 7, 200_000, 16), data=bytes(200_000), big=big), "TIFF") == Header()
    with pytest.raises(Excessive, match="point to more bytes than there are in the file"):
        header(crowded_tags(3, 100_000, big=big), "TIFF")
    with pytest.raises(Excessive, match="more than 4096 tags"):
        header(crowded_tags(4090, 0, big=big), "TIFF")
    beyond = [(40000 + tag, 7, 1 << 31, 16) for tag in range(20)]  # is not read
    assert header(grey_tiff((4, 4), *beyond, data=bytes(16), big=big), "TIFF") == Header()


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


def segment(mark: int, data: bytes) -> bytes:
    return bytes([0xFF, mark]) + struct.pack(">H", len(data) + 2) + data


def test_pieces_of_further_data_in_a_jpeg_file_are_counted():
    assert header(exif_pieces(256, 10), "JPEG") == Header()
    with pytest.raises(Excessive, match="over 4096 segments before its pixels, or 256 of EXIF data"):
        header(exif_pieces(257, 10), "JPEG")
    usual = encoded("JPEG")
    for mark, data in ((0xEA, b""), (0xFE, b"a bird"), (0xDB, b"\0" + bytes(64)), (0xE1, b"http://ns.adobe.com/xap/")):
        assert header(usual[:2] + segment(mark, data) * 4000 + usual[2:], "JPEG") == Header()
        with pytest.raises(Excessive, match="over 4096 segments"):
            header(usual[:2] + segment(mark, data) * 4097 + usual[2:], "JPEG")


def test_a_jpeg_file_of_many_ordinary_pieces_is_let_be():
    profile = [b"ICC_PROFILE\0" + bytes([place, 255]) + bytes(65_000) for place in range(1, 256)]
    further = [b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)] * 300
    marks = b"".join(segment(0xE2, piece) for piece in profile) + b"".join(segment(0xE1, piece) for piece in further)
    usual = encoded("JPEG", exif=Image.Exif().tobytes())
    data = usual[:2] + marks + usual[2:]
    assert header(data, "JPEG") == Header()
    assert len(JpegImagePlugin.JpegImageFile(io.BytesIO(data)).info["icc_profile"]) == 255 * 65_000


def segments_for_pillow(data: bytes) -> tuple[int, bool]:
    """Return how many segments Pillow reads before the first scan, and whether it gets there."""
    seen: list[int] = []

    def counted(handler: Callable[[object, int], None]) -> Callable[[object, int], None]:
        return lambda image, mark: (seen.append(mark), handler(image, mark))[1]

    marks = {mark: (*named, handler and counted(handler)) for mark, (*named, handler) in JpegImagePlugin.MARKER.items()}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        patch.setattr(JpegImagePlugin, "MARKER", marks)
        JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    return sum(mark != 0xFFDA for mark in seen), 0xFFDA in seen


FILLING = (b"", b"x", b"\0", b"\xff", b"\xff\xff", b"\xff\0", b"\xff\0\xff", b"\xff\xd0", b"\xff\xf0z", b"\xff\xe1\0\0")
SEGMENTS = (segment(0xE1, b"Exif\0\0"), segment(0xE2, b"a\xff\xdab"), segment(0xFE, b""), segment(0xDD, b"\0\0"))


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.sampled_from(FILLING + SEGMENTS) | st.binary(max_size=4), max_size=12))
def test_whatever_stands_between_them_segments_are_counted_as_pillow_does(pieces):
    usual = encoded("JPEG")
    data = usual[:2] + b"".join((SEGMENTS[0], *pieces)) + usual[2:]
    known, whole = segments_for_pillow(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("concept_tuning.data.picture_headers._MOST_SEGMENTS", known - 1)
        with pytest.raises(Excessive):
            header(data, "JPEG")
        patch.setattr("concept_tuning.data.picture_headers._MOST_SEGMENTS", known)
        if whole:
            assert header(data, "JPEG") == Header()
