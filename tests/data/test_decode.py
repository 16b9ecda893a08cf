from __future__ import annotations

import io
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from fuzz_bombs import gif, grey_tiff, rle_bmp, same_tiles, tiled_tiff
from fuzz_bombs import png as animated_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from concept_tuning.data import decode
from concept_tuning.data.decode import FORMATS, UnreadableImage, decode_image, decode_mask, keeping_turn

PIXELS = 1_000_000
LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")
NOISE = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, form: str, **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, form, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file written out by hand, for kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("form", LOSSLESS)
def test_colour_is_read_exactly_from_bytes_and_file(form, tmp_path):
    data = encode(NOISE, form)
    (tmp_path / "a.xyz").write_bytes(data)  # the content counts, not the suffix
    for source in (data, tmp_path / "a.xyz"):
        pixels = decode_image(source, max_pixels=PIXELS)
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        assert np.array_equal(pixels, NOISE)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_a_flat_colour_back(form):
    flat = np.full((16, 24, 3), (200, 100, 40), dtype=np.uint8)
    pixels = decode_image(encode(flat, form), max_pixels=PIXELS)
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels.astype(int) - flat).max() <= 4


class Busy:
    """Counts how many are in a block at once."""

    def __init__(self) -> None:
        self.most, self._now, self._lock = 0, 0, threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def busy_while(monkeypatch: pytest.MonkeyPatch, name: str) -> Busy:
    """Return what counts the calls of a function of the decoder that run at once."""
    busy, before = Busy(), getattr(decode, name)

    def counted(*args: object) -> object:
        with busy:
            return before(*args)

    monkeypatch.setattr(decode, name, counted)
    return busy


@pytest.mark.parametrize(("limit", "one"), [(NOISE.shape[0] * NOISE.shape[1] - 1, True), (63, False)])
def test_large_pictures_are_decoded_one_at_a_time_and_others_together(monkeypatch, limit, one):
    monkeypatch.setattr(decode, "LARGE_PIXELS", limit)
    busy = busy_while(monkeypatch, "upright")
    data = encode(NOISE, "PNG")
    calls = [decode_image, decode_mask] * 6
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda call: call(data, max_pixels=PIXELS), calls))
    assert np.array_equal(found[0], NOISE)
    assert (busy.most == 1) is one


@pytest.mark.parametrize(
    "data",
    [
        rle_bmp((9, 7), b"\0\1"),
        tiled_tiff((9, 7), (64, 64)),
        gif((40, 40), (9, 7)),
        animated_png((40, 40), frame=(1, 1)),
    ],
)
def test_pictures_whose_decoders_make_much_room_are_large(data, monkeypatch):
    monkeypatch.setattr(decode, "LARGE_PIXELS", 1000)  # 9 x (7 + 255) for the first
    busy = busy_while(monkeypatch, "_check_work")
    with ThreadPoolExecutor(4) as pool, suppress(UnreadableImage):  # the last is cut off
        list(pool.map(lambda _: decode_image(data, max_pixels=PIXELS), range(8)))
    assert busy.most == 1


def test_a_turn_is_kept_for_what_is_done_with_the_array(monkeypatch):
    monkeypatch.setattr(decode, "LARGE_PIXELS", 10)
    busy, data = Busy(), encode(NOISE, "PNG")

    def use() -> None:
        with keeping_turn():
            decode_image(data, max_pixels=PIXELS)
            with busy:
                decode_mask(data, max_pixels=PIXELS)  # the same thread waits for nobody

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(use) for _ in range(8)]:
            done.result(timeout=20)
    assert busy.most == 1


def test_a_picture_that_fails_gives_its_turn_away(monkeypatch):
    monkeypatch.setattr(decode, "LARGE_PIXELS", 10)
    data = encode(NOISE, "PNG")
    with pytest.raises(UnreadableImage), keeping_turn():
        decode_image(data[:150], max_pixels=PIXELS)
    with pytest.raises(UnreadableImage):
        decode_image(data[:150], max_pixels=PIXELS)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(decode_image, data, max_pixels=PIXELS).result(timeout=20).shape == NOISE.shape


@pytest.mark.skipif(decode._trim is None, reason="the C library gives memory back by itself")
def test_memory_of_a_large_picture_is_given_back_by_every_thread(monkeypatch):
    trimmed = []
    monkeypatch.setattr(decode, "_trim", trimmed.append)
    data = encode(NOISE, "PNG")
    decode_image(data, max_pixels=PIXELS)
    assert trimmed == []
    monkeypatch.setattr(decode, "LARGE_PIXELS", 10)
    decode_image(data, max_pixels=PIXELS)
    assert trimmed == [0]


def test_grey_and_black_and_white_fill_three_channels():
    grey = NOISE[..., 0]
    assert np.array_equal(decode_image(encode(grey, "PNG"), max_pixels=PIXELS), np.repeat(grey[..., None], 3, axis=2))
    bits = Image.fromarray(grey).point(lambda value: 255 * (value > 127)).convert("1")
    expected = np.repeat(np.where(grey > 127, 255, 0)[..., None], 3, axis=2)
    assert np.array_equal(decode_image(encode(bits, "PNG"), max_pixels=PIXELS), expected)


def test_palette_colours_are_looked_up():
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "L").copy()
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    assert decode_image(encode(image, "PNG"), max_pixels=PIXELS).tolist() == expected
    transparent = decode_image(encode(image, "PNG", transparency=1), max_pixels=PIXELS).tolist()
    assert transparent == [[[10, 20, 30], [255] * 3], [[70, 80, 90], [255] * 3]]
    partly = decode_image(encode(image, "PNG", transparency=bytes([0, 51, 255])), max_pixels=PIXELS).tolist()
    assert partly == [[[255] * 3, [212, 214, 216]], [[70, 80, 90], [212, 214, 216]]]  # 0.2 colour + 0.8 white


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_put_on_white(form):
    image = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 127]]], dtype=np.uint8)
    options = {"lossless": True} if form == "WEBP" else {}
    pixels = decode_image(encode(image, form, **options), max_pixels=PIXELS)
    assert pixels.tolist() == [[[10, 20, 30], [255] * 3, [128] * 3]]


def test_grey_with_alpha_and_a_transparent_colour():
    image = Image.fromarray(np.array([[[40, 255], [40, 0]]], dtype=np.uint8), "LA")
    assert decode_image(encode(image, "PNG"), max_pixels=PIXELS)[0, :, 0].tolist() == [40, 255]
    keyed = encode(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8), "PNG", transparency=(4, 5, 6))
    assert decode_image(keyed, max_pixels=PIXELS).tolist() == [[[1, 2, 3], [255] * 3]]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_deep_grey_loses_its_low_bits_and_is_not_clipped(form):
    values = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], dtype=np.uint16)
    pixels = decode_image(encode(values, form), max_pixels=PIXELS)
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 127, 128, 255]
    assert (pixels == pixels[..., :1]).all()


def test_deep_grey_of_other_byte_order_depth_and_polarity():
    values = np.array([[0, 255, 256, 0xFFFF]], dtype=np.uint16)
    big = Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes())
    assert decode_image(encode(big, "TIFF"), max_pixels=PIXELS)[0, :, 0].tolist() == [0, 0, 1, 255]
    white_is_zero = encode(values, "TIFF", tiffinfo={262: 0})
    assert decode_image(white_is_zero, max_pixels=PIXELS)[0, :, 0].tolist() == [255, 255, 254, 0]
    # 12 bits, two values in three bytes
    fields = [(256, 4, 2), (257, 4, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 200), (278, 4, 1), (279, 4, 3)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    twelve = b"II*\0" + struct.pack("<IH", 8, len(fields)) + directory + bytes(4)
    twelve = twelve.ljust(200, b"\0") + bytes([0xFF, 0xF8, 0x00])
    assert decode_image(twelve, max_pixels=PIXELS)[0, :, 0].tolist() == [255, 128]


def test_deep_colour_keeps_its_high_bytes():
    row = b"\0" + struct.pack(">6H", 0x12FF, 0x8000, 0xFFFF, 0, 0x00FF, 0x0100)
    assert decode_image(png(2, 1, 16, 2, row), max_pixels=PIXELS).tolist() == [[[0x12, 0x80, 0xFF], [0, 0, 1]]]
    row = b"\0" + struct.pack(">4H", 0x4000, 0xFFFF, 0x4000, 0)
    assert decode_image(png(2, 1, 16, 4, row), max_pixels=PIXELS)[0, :, 0].tolist() == [0x40, 255]
    row = b"\0" + struct.pack(">2H", 0x1234, 0x1235)
    keyed = png(2, 1, 16, 0, row, (b"tRNS", struct.pack(">H", 0x1235)))
    assert decode_image(keyed, max_pixels=PIXELS)[0, :, 0].tolist() == [0x12, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused(mode):
    with pytest.raises(UnreadableImage, match="no known range; store the picture with 8"):
        decode_image(encode(Image.new(mode, (3, 3), 7), "TIFF"), max_pixels=PIXELS)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_ink_colours_are_turned_to_light(form):
    # no ink is white, all black ink is black, cyan ink takes the red away
    for ink, light in (((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)), ((255, 0, 0, 0), (0, 255, 255))):
        pixels = decode_image(encode(Image.new("CMYK", (16, 16), ink), form), max_pixels=PIXELS)
        assert np.abs(pixels.astype(int) - light).max() <= 3


def test_adobe_files_store_ink_inverted():
    data = encode(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    marker = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
    adobe = data[:2] + b"\xff\xee" + struct.pack(">H", len(marker) + 2) + marker + data[2:]
    raw = Image.open(io.BytesIO(adobe))
    assert raw.info["adobe_transform"] == 0
    assert decode_image(adobe, max_pixels=PIXELS).min() >= 252


def upright_by_hand(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Stored row r, column c to the place that the EXIF standard names for it, one pixel at a time."""
    height, width = stored.shape[:2]
    shape = (width, height) if orientation >= 5 else (height, width)
    shown = np.zeros((*shape, *stored.shape[2:]), dtype=stored.dtype)
    for r in range(height):
        for c in range(width):
            place = {
                1: (r, c),
                2: (r, width - 1 - c),
                3: (height - 1 - r, width - 1 - c),
                4: (height - 1 - r, c),
                5: (c, r),
                6: (c, height - 1 - r),
                7: (width - 1 - c, height - 1 - r),
                8: (width - 1 - c, r),
            }[orientation]
            shown[place] = stored[r, c]
    return shown


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_and_masks_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    expected = upright_by_hand(NOISE, orientation)
    for form in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encode(NOISE, form, exif=exif, **options)
        assert np.array_equal(decode_image(data, max_pixels=PIXELS), expected)
    data = encode(NOISE, "TIFF", exif=exif, compression="tiff_lzw")
    assert np.array_equal(decode_image(data, max_pixels=PIXELS), expected)
    mask = (NOISE[..., 0] > 128).astype(np.uint8)
    data = encode(mask, "PNG", exif=exif)
    assert np.array_equal(decode_mask(data, max_pixels=PIXELS), upright_by_hand(mask, orientation) == 1)


@pytest.mark.parametrize("block", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"])
def test_damaged_exif_leaves_the_picture_as_stored(block):
    flat = np.full((8, 16, 3), 77, dtype=np.uint8)
    pixels = decode_image(encode(flat, "JPEG", exif=block), max_pixels=PIXELS)
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels.astype(int) - 77).max() <= 2


def test_exif_that_cannot_be_parsed_leaves_the_picture_as_stored():
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n8\nno hexadecimal digits")
    assert np.array_equal(decode_image(encode(NOISE, "PNG", pnginfo=text), max_pixels=PIXELS), NOISE)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_unknown_orientations_are_none(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    assert np.array_equal(decode_image(encode(NOISE, "PNG", exif=exif), max_pixels=PIXELS), NOISE)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.abs(decode_image(data, max_pixels=PIXELS).astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_file_is_refused_or_was_complete(form):
    data = encode(NOISE, form)
    whole = decode_image(data, max_pixels=PIXELS)
    complete = 0
    for length in range(len(data)):
        with suppress(UnreadableImage):
            assert np.array_equal(decode_image(data[:length], max_pixels=PIXELS), whole)
            complete += 1
    assert complete <= 20  # of which only the end mark was cut


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_files_give_pixels_or_a_reason(form, changes):
    data = bytearray(encode(NOISE, form))
    for place, value in changes:
        data[place % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(UnreadableImage):
            pixels = decode_image(bytes(data), max_pixels=10_000)
            assert pixels.dtype == np.uint8
            assert pixels.shape[0] * pixels.shape[1] <= 10_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "^the file is empty$"),
        (b"label,path\n", r"^not a picture in one of the formats PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM$"),
        (b"%PDF-1.4 etc etc etc", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "damaged or cut off PNG file"),
        (encode(NOISE, "JPEG")[:-60], "damaged or cut off"),
    ],
)
def test_reasons_are_in_words(data, reason, tmp_path):
    (tmp_path / "x.png").write_bytes(data)
    for source in (data, tmp_path / "x.png"):
        for call in (decode_image, decode_mask):
            with pytest.raises(UnreadableImage, match=reason):
                call(source, max_pixels=PIXELS)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UnreadableImage, match=r"^there is no such file$"):
        decode_image(tmp_path / "none.png", max_pixels=PIXELS)
    with pytest.raises(UnreadableImage, match="cannot be read: Is a directory"):
        decode_image(tmp_path, max_pixels=PIXELS)


def test_formats_outside_the_list_are_refused():
    for form in ("ICO", "TGA", "PCX", "EPS"):
        with pytest.raises(UnreadableImage, match="not a picture in one of the formats"):
            decode_image(encode(Image.new("RGB", (16, 16)), form), max_pixels=PIXELS)


def test_the_size_limit_is_exact_and_checked_before_decoding(monkeypatch):
    data = encode(NOISE, "PNG")
    assert decode_image(data, max_pixels=63).shape == (9, 7, 3)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage, match=r"7 x 9 pixels, and at most 62 are allowed \(setting data.max_pixels\)"):
        decode_image(data, max_pixels=62)


@pytest.mark.parametrize("kind", ["png", "bmp", "ppm", "gif"])
def test_headers_that_claim_a_huge_picture_are_refused_in_silence(kind):
    side = 60_000
    data = {
        "png": png(side, side, 8, 2, b""),
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6 60000 60000 255\n",
        "gif": b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    }[kind]
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImage, match="too large: 60000 x 60000"):
            decode_image(data, max_pixels=100_000_000)
    assert before == Image.MAX_IMAGE_PIXELS


def test_run_length_coded_pictures_are_read_exactly():
    colours = np.array([[value, 255 - value, value // 2] for value in range(256)])[:, ::-1]  # stored from blue to red
    steps = b"\4\7\2\1\0\0" + b"\0\2\1\0" + b"\1\3\0\4\x09\x08\x07\x06\0\0" + b"\6\xc8\0\1"
    indices = [[200] * 6, [0, 3, 9, 8, 7, 6], [7, 7, 7, 7, 1, 1]]  # from below
    assert np.array_equal(decode_image(rle_bmp((6, 3), steps), max_pixels=PIXELS), colours[indices])
    four = decode_image(rle_bmp((6, 2), b"\6\x17\0\0\4\x12\2\x30\0\1", bits=4), max_pixels=PIXELS)
    assert np.array_equal(four, colours[[[1, 2, 1, 2, 3, 0], [1, 7, 1, 7, 1, 7]]])


def test_the_room_for_run_lengths_and_tiles_is_bounded_exactly(monkeypatch):
    monkeypatch.setattr(decode, "_ROOM_PIXELS", 1000)
    said = "{} may take as much room as {} pixels, and at most {} are allowed"
    for data, what, size, most in (
        (rle_bmp((9, 7), b"\x09\5\0\0" * 7), "its run-length coding", "9 x 262", 9 * 262),
        (tiled_tiff((9, 7), (64, 64)), "its tiles", "64 x 64", 64 * 64),
    ):
        assert decode_image(data, max_pixels=most).shape == (7, 9, 3)
        for call in (decode_image, decode_mask):
            with pytest.raises(UnreadableImage, match=said.format(what, size, most - 1)):
                call(data, max_pixels=most - 1)
        monkeypatch.setattr(decode, "_ROOM_PIXELS", most)  # whatever the limit
        assert decode_image(data, max_pixels=63).shape == (7, 9, 3)
        monkeypatch.setattr(decode, "_ROOM_PIXELS", 1000)


def test_the_pixels_of_all_tiles_are_bounded_exactly(monkeypatch):
    monkeypatch.setattr(decode, "_ROOM_PIXELS", 1000)
    data = same_tiles(50, 100)  # a picture of 50 pixels
    assert decode_image(data, max_pixels=50 * 100 - 4 * 50).shape == (50, 1, 3)
    with pytest.raises(UnreadableImage, match="most of its tiles lies beyond the picture"):
        decode_image(data, max_pixels=50 * 100 - 4 * 50 - 1)


def test_a_bigtiff_file_that_pillow_takes_for_another_kind_is_not_called_damaged():
    tags = [(256, 20), (257, 10), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 10), (279, 200)]
    table = b"".join(struct.pack(">HHQHHI", tag, 3, 1, value, 0, 0) for tag, value in tags)
    data = b"MM\0+" + struct.pack(">HHQQ", 8, 0, 16, len(tags)) + table + bytes(208)
    with pytest.raises(UnreadableImage, match=r"^a BigTIFF file in big-endian order, which is not supported; store it"):
        decode_image(data, max_pixels=PIXELS)


@pytest.mark.parametrize("how", [1, 8, 34925])
@pytest.mark.parametrize("big", [False, True])
def test_tiles_larger_than_the_picture_are_read(how, big, tmp_path):
    (tmp_path / "x.tif").write_bytes(tiled_tiff((30, 20), (256, 256), how=how, big=big))
    assert decode_image(tmp_path / "x.tif", max_pixels=600).shape == (20, 30, 3)


def test_colours_stored_apart_are_read_though_they_are_as_many_layers():
    planes = NOISE.transpose(2, 0, 1)
    places = struct.pack("<III", *(16 + 63 * plane for plane in range(3))) + struct.pack("<III", 63, 63, 63)
    data = planes.tobytes() + places + struct.pack("<HHH", 8, 8, 8)
    tags = [(258, 3, 3, 16 + 189 + 24), (262, 3, 1, 2), (277, 3, 1, 3), (284, 3, 1, 2)]
    tags += [(273, 4, 3, 16 + 189), (279, 4, 3, 16 + 189 + 12)]
    assert np.array_equal(decode_image(grey_tiff((7, 9), *tags, data=data), max_pixels=PIXELS), NOISE)


def test_animations_that_clear_their_canvas_and_comments_are_read():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for form, disposal in (("GIF", 2), ("GIF", 3), ("PNG", 1), ("PNG", 2)):
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], disposal=disposal)
        assert np.abs(decode_image(data, max_pixels=64).astype(int) - (255, 0, 0)).max() <= 4
    assert decode_image(b"P2 # a\n3 1 # b\n9\n" + b"1 # c\n" * 3, max_pixels=3)[..., 0].tolist() == [[28] * 3]
    assert b"a bird" in encode(frames[0], "GIF", comment=b"a bird" * 500)
    assert decode_image(encode(frames[0], "GIF", comment=b"a bird" * 500), max_pixels=64).shape == (8, 8, 3)


def test_a_large_animation_that_the_limit_allows_is_opened_in_silence(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    data = encode(Image.new("P", (8, 8)), "GIF", disposal=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(data, max_pixels=64).shape == (8, 8, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_files_are_turned_by_their_exif_or_xmp(progressive):
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[274], exif[271] = 6, "a camera"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for options in ({"exif": exif}, {"xmp": xmp}, {"exif": Image.Exif().tobytes(), "xmp": xmp}):
        shown = decode_image(encode(pixels, "JPEG", progressive=progressive, **options), max_pixels=PIXELS)
        assert shown.shape == (32, 16, 3)
        assert shown[4, 8, 0] > 250
        assert shown[28, 8, 0] < 5


def test_exif_in_a_text_of_a_png_is_found():
    exif = Image.Exif()
    exif[274] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes()):8d}\n{exif.tobytes().hex()}\n")
    expected = upright_by_hand(NOISE, 6)
    assert np.array_equal(decode_image(encode(NOISE, "PNG", pnginfo=text), max_pixels=PIXELS), expected)


def test_what_the_limit_allows_and_the_reader_cannot_hold_is_refused():
    with pytest.raises(UnreadableImage, match=r"^it does not fit into memory$"):
        decode_image(png(2**31 - 1, 2**31 - 1, 8, 2, b""), max_pixels=2**62)
    frame = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;"
    with pytest.raises(UnreadableImage, match=r"^too many pixels for its format"):
        decode_image(frame, max_pixels=2**62)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP"])
def test_the_callers_limit_counts_not_pillows(form, monkeypatch):
    data = encode(NOISE, form)
    expected = decode_image(data, max_pixels=PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 63 pixels: Pillow itself would warn
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.array_equal(decode_image(data, max_pixels=PIXELS), expected)
    assert not caught
    assert warnings.filters == filters
    assert Image.MAX_IMAGE_PIXELS == 40


def test_many_threads_with_limits_of_their_own():
    data, wrong = encode(NOISE, "PNG"), []

    def work(limit: int) -> None:
        for _ in range(50):
            try:
                decode_image(data, max_pixels=limit)
                allowed = True
            except UnreadableImage:
                allowed = False
            if allowed != (limit >= 63):
                wrong.append(limit)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (62, 63, 64, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_is_where_the_value_is_not_zero(value):
    inside = NOISE[..., 0] > 128
    grey = (inside * value).astype(np.uint8)
    mask = decode_mask(encode(grey, "PNG"), max_pixels=PIXELS)
    assert mask.dtype == bool
    assert np.array_equal(mask, inside)
    assert np.array_equal(decode_mask(encode(grey.astype(np.uint16), "PNG"), max_pixels=PIXELS), inside)
    assert np.array_equal(decode_mask(encode(grey.astype(np.int32), "TIFF"), max_pixels=PIXELS), inside)
    assert np.array_equal(decode_mask(encode(grey.astype(np.float32), "TIFF"), max_pixels=PIXELS), inside)
    assert np.array_equal(decode_mask(encode(Image.fromarray(inside), "PNG"), max_pixels=PIXELS), inside)


def test_colour_masks_count_by_colour_whatever_their_palette_order():
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "L").copy()
    image.putpalette([255, 255, 255, 0, 0, 0, 128, 0, 0])
    assert decode_mask(encode(image, "PNG"), max_pixels=PIXELS).tolist() == [[True, False, True]]
    cutout = np.array([[[9, 9, 9, 255], [9, 9, 9, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    assert decode_mask(encode(cutout, "PNG"), max_pixels=PIXELS).tolist() == [[True, False, False]]
