"""A picture of a stranger that is small and asks for much: memory before its size is looked at, or time without end."""

from __future__ import annotations

import re
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_bombs import (
    comments,
    crowded_tags,
    eps,
    exif,
    exif_pieces,
    far_tile,
    gif,
    grey_tiff,
    jpeg,
    named_strips,
    png,
    png_piece,
    pointed_tags,
    rle_bmp,
    same_tiles,
    tiled_tiff,
    webp,
)
from own_memory import TOLD, begin_again, own_memory

from concept_tuning.data.decode import UnreadableImage, decode_image, decode_mask

#: Most pixels, as for the demo, and most memory that a refusal, or a picture of a few pixels, may take.
PIXELS, MEMORY = 30_000_000, 40 << 20


def taken(call: Callable[[], object]) -> tuple[str, int]:
    """Return what came of a call, and the most bytes of memory that this process had meanwhile beyond those before."""
    begin_again()
    before = own_memory("VmRSS")
    try:
        call()
        outcome = "decoded"
    except UnreadableImage as error:
        outcome = str(error)
    return outcome, own_memory("VmHWM") - before


def made(call: Callable[[bytes], object], data: bytes, said: str) -> None:
    """A picture is decoded or refused at once, with little memory, with these words, and without a warning."""
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome, most = taken(lambda: call(data))
    assert re.search(said, outcome)
    assert most < MEMORY
    assert time.monotonic() - begun < 10


BOMBS = {
    "a run-length coding that skips 255 rows": (lambda: rle_bmp((1_000_000, 1)), "its run-length coding may take"),
    "a run-length coding of four bits": (lambda: rle_bmp((1_000_000, 1), bits=4), "its run-length coding may take"),
    "a tile far larger than the picture": (lambda: tiled_tiff((16, 16), (16384, 16384)), "its tiles may take as much"),
    "a tile of BigTIFF": (lambda: tiled_tiff((16, 16), (2, 100_000_000), big=True), "2 x 100000000 pixels"),
    "a tile whose size stands beside the directory": (lambda: far_tile((16, 16), (16384, 16384)), "its tag 322 does"),
    "TIFF strips named by single bytes": (lambda: named_strips(1, 1_000_000), "far more strips or tiles"),
    "TIFF strips named by numbers": (lambda: named_strips(3, 500_000), "far more strips or tiles"),
    "a GIF that clears a large screen": (lambda: gif((16000, 11000), (16000, 11000)), "too large: 16000 x 11000"),
    "a GIF whose frame is larger than its screen": (lambda: gif((10, 10), (16000, 11000)), "too large: 16000 x 11000"),
    "a GIF frame that goes back to what was": (lambda: gif((1, 1), (9000, 9000), disposal=3), "too large: 9000 x 9000"),
    "an animated PNG that clears its canvas": (lambda: png((9000, 9000), frame=(1, 1)), "too large: 9000 x 9000"),
    "a PNG of two sizes": (lambda: png((9000, 9000), (4, 4), frame=(9000, 9000)), "too large: 9000 x 9000"),
    "a WebP canvas": (lambda: webp((16000, 16000)), "too large: 16000 x 16000"),
    "TIFF tags that share their bytes": (lambda: crowded_tags(500, 1_000_000), "more bytes than there are"),
    "BigTIFF tags that share their bytes": (lambda: crowded_tags(500, 10**6, big=True), "more bytes than there are"),
    "TIFF tags of an EXIF block that is pointed to by two short numbers": (
        lambda: pointed_tags(150, 1_000_000, kind=3, number=2),
        "its tag 34665 does",
    ),
    "TIFF tags of an EXIF block that is pointed to by two long numbers": (
        lambda: pointed_tags(150, 1_000_000, kind=4, number=2),
        "its tag 34665 does",
    ),
    "TIFF tags of an EXIF block that is pointed to by a number of eight bytes": (
        lambda: pointed_tags(150, 1_000_000, kind=16),
        "its tag 34665 does",
    ),
    "TIFF tags of a directory that an EXIF block points to": (
        lambda: pointed_tags(150, 1_000_000, within=True),
        "more bytes than there are",
    ),
    "a TIFF resolution of two million fractions": (
        lambda: grey_tiff((4, 4), (282, 5, 2_000_000, 16), data=b"\1\2\0\0" * 4_000_000),
        "too many numbers",
    ),
    "EXIF tags of a PNG that share their bytes": (
        lambda: png((1, 1), more=png_piece(b"eXIf", exif(500, 1_000_000))),
        "decoded",
    ),
    "EXIF tags of a JPEG file that share their bytes": (lambda: jpeg(exif(1000, 500_000)), "decoded"),
    "an EXIF block that begins again and again": (
        lambda: png((1, 1), more=png_piece(b"eXIf", b"Exif\0\0" * 700_000)),
        "decoded",
    ),
}


@pytest.mark.skipif(not TOLD, reason="memory is told by Linux alone")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_picture_that_asks_for_gigabytes_takes_little(bomb: str) -> None:
    make, said = BOMBS[bomb]
    data = make()
    for call in (decode_image, decode_mask):
        made(lambda picture, call=call: call(picture, max_pixels=PIXELS), data, said)


SLOW = {
    "comments of a GIF, joined one by one": (
        lambda: gif((2, 2), (2, 2), extensions=comments(60_000)),
        "comes only after",
    ),
    "comments of a plain PPM, cut out one by one": (
        lambda: b"P2 10 10 255\n" + b"#\n" * 400_000 + b"1 " * 100,
        "more than 1000 comments",
    ),
    "scans of a JPEG that hold nothing": (lambda: jpeg(size=(5000, 5000), scans=20_000), "more than 200 layers"),
    "pieces of an EXIF block, joined one by one": (lambda: exif_pieces(120_000, 10), "or 256 of EXIF data"),
    "tiles that lie beyond the picture": (lambda: same_tiles(2000, 4_000_000), "most of its tiles lies beyond"),
    "strips of a TIFF that are the whole picture": (lambda: whole_strips(2000, 20_000), "many times over"),
}


def whole_strips(side: int, count: int) -> bytes:
    """Return a TIFF file of very many strips, of which every other is all rows but the last."""
    places = b"".join((16 + place).to_bytes(4, "little") for place in range(count))
    start = 16 + side * side + count
    strips = [(273, 4, count, start), (278, 4, 1, side - 1), (279, 4, 1, side * side)]
    return grey_tiff((side, side), *strips, data=bytes(side * side + count) + places)


@pytest.mark.skipif(not TOLD, reason="memory is told by Linux alone")
@pytest.mark.parametrize("bomb", SLOW)
def test_a_small_picture_that_takes_minutes_is_refused_at_once(bomb: str) -> None:
    make, said = SLOW[bomb]
    made(lambda picture: decode_image(picture, max_pixels=PIXELS), make(), said)


def test_a_file_is_not_asked_for_more_bytes_than_it_has(tmp_path: Path) -> None:
    whole = png((1, 1))
    claimed = whole.replace(b"\0\0\0\x0bIDAT", b"\xf0\0\0\x0bIDAT")  # of which the first eleven are enough
    assert claimed != whole
    (tmp_path / "x.png").write_bytes(claimed)
    tracemalloc.start()
    try:
        assert decode_image(tmp_path / "x.png", max_pixels=1).shape == (1, 1, 3)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "bmp", "ppm", "webp", "eps"])
def test_a_program_is_not_run_whatever_it_is_called(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(eps((10, 10)))
    with pytest.raises(UnreadableImage, match="not a picture in one of the formats"):
        decode_image(tmp_path / f"x.{suffix}", max_pixels=PIXELS)
