"""Small files that ask for much: pictures and archives whose headers claim sizes, counts and room at random.

Each follows from one random source. They are whole and sound but for what they claim, so that they reach the code that
believes it; ``fuzz_inputs.py`` gives them to what takes pictures and archives in.
"""

from __future__ import annotations

import gzip
import io
import lzma
import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence

from PIL import Image

Size = tuple[int, int]
_SIDES = (1, 2, 16, 255, 700, 1000, 4000, 16000, 20000, 32768, 65535, 1_000_000, 30_000_000, 2**31 - 1)
_SHORT_SIDES = tuple(side for side in _SIDES if side <= 65535)
_COUNTS = (1, 3, 50, 500, 5000)
_RAW, _GROUP3, _DEFLATE, _LZMA = 1, 3, 8, 34925
#: Every compression of TIFF that Pillow knows by number.
_HOW = (_RAW, 2, _GROUP3, 4, 5, 6, 7, _DEFLATE, 32771, 32773, 32809, 32946, 34676, 34677, _LZMA, 50000, 50001)


def rle_bmp(size: Size, steps: bytes = b"\0\2\xff\xff", *, bits: int = 8) -> bytes:
    """Return a BMP file with a run-length coding; the steps of default skip 255 pixels and 255 rows."""
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, 1 if bits == 8 else 2, 0, 0, 0, 1 << bits, 0)
    colours = b"".join(bytes((value, 255 - value, value // 2, 0)) for value in range(1 << bits))
    start = 14 + len(header) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(steps), 0, 0, start) + header + colours + steps


def tiff(tags: Sequence[tuple[int, int, int, int]], data: bytes, *, big: bool = False) -> bytes:
    """Return a TIFF file (or BigTIFF) of tags (tag, type, count, value or place) after data, which is at byte 16."""
    data += bytes(len(data) % 2)
    form, count, end = ("<HHQQ", "<Q", bytes(8)) if big else ("<HHII", "<H", bytes(4))
    mask = 2**64 - 1 if big else 2**32 - 1
    table = b"".join(struct.pack(form, *tag[:3], tag[3] & mask) for tag in sorted(tags))
    place = 16 + len(data)
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, place) if big else b"II*\0" + struct.pack("<I", place) + bytes(8)
    return head + data + struct.pack(count, len(tags)) + table + end


def grey_tiff(size: Size, *more: tuple[int, int, int, int], data: bytes, how: int = _RAW, big: bool = False) -> bytes:
    """Return a grey TIFF file of one strip with further tags, which replace those of the same number."""
    tags = {256: (4, 1, size[0]), 257: (4, 1, size[1]), 258: (3, 1, 8), 259: (3, 1, how), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 16), 277: (3, 1, 1), 278: (4, 1, size[1]), 279: (4, 1, len(data))}
    tags |= {tag: tuple(rest) for tag, *rest in more}
    return tiff([(tag, *rest) for tag, rest in tags.items()], data, big=big)


def tiled_tiff(size: Size, tile: Size, *, how: int = _DEFLATE, big: bool = False) -> bytes:
    """Return a TIFF file of one tile of zeros, of which at most a gigabyte (deflate) or 4 MB (others) are there."""
    pixels, bits = tile[0] * tile[1], 1 if how == _GROUP3 else 8
    if how == _DEFLATE:
        data = zeros(min(pixels, 1 << 30))
    elif how == _LZMA:
        data = lzma.compress(bytes(min(pixels, 1 << 22)), preset=0)
    else:
        data = bytes(min(pixels * bits // 8 + 1, 1 << 22))
    tags = [(256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 1, bits), (259, 3, 1, how), (262, 3, 1, 1)]
    tags += [(277, 3, 1, 1), (322, 4, 1, tile[0]), (323, 4, 1, tile[1]), (324, 4, 1, 16), (325, 4, 1, len(data))]
    return tiff(tags, data, big=big)


def named_strips(kind: int, count: int) -> bytes:
    """Return a TIFF file of two rows that names far more strips, each the same byte, by numbers of a type."""
    bytes_each = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}[kind]
    places = (16).to_bytes(bytes_each, "little") * count
    return grey_tiff((1, 2), (273, kind, count, 16), (278, 3, 1, 1), data=places)


def far_tile(size: Size, tile: Size) -> bytes:
    """Return a TIFF file of one tile, the numbers of whose size are so long that they stand beside the directory."""
    data = struct.pack("<QQ", *tile) + zeros(min(tile[0] * tile[1], 1 << 30))
    tags = [(256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 1, 8), (259, 3, 1, _DEFLATE), (262, 3, 1, 1)]
    tags += [(277, 3, 1, 1), (322, 16, 1, 16), (323, 16, 1, 24), (324, 4, 1, 32), (325, 4, 1, len(data) - 16)]
    return tiff(tags, data)


def same_tiles(count: int, width: int) -> bytes:
    """Return a TIFF file a pixel wide, each row of which is a tile of zeros so wide; all are the same bytes."""
    tile = zeros(width)
    places = struct.pack(f"<{count}I", *[16] * count) + struct.pack(f"<{count}I", *[len(tile)] * count)
    tags = [(256, 4, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, _DEFLATE), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, width), (323, 4, 1, 1)]
    tags += [(324, 4, count, 16 + len(tile)), (325, 4, count, 16 + len(tile) + 4 * count)]
    return tiff(tags, tile + places)


def pointed_tags(count: int, size: int, *, kind: int = 4, number: int = 1, within: bool = False) -> bytes:
    """Return a TIFF file that leads to a directory of many tags that all point to the same bytes.

    Args:
        count: How many tags.
        size: How many bytes.
        kind: Type of the tag that points to the directory as to an EXIF block.
        number: How many numbers that tag holds, of which the first counts.
        within: Whether the directory is one for interoperability, which an ordinary EXIF block points to.
    """
    data = _exif_tags(count, size) + bytes(size)
    if within:
        data = struct.pack("<HHHIII", 1, 40965, 4, 1, 34, 0) + data
        return grey_tiff((4, 4), (34665, 4, 1, 16), (40965, 4, 1, 16), data=data)
    place = 24 if {3: 2, 4: 4, 16: 8}[kind] * number <= 4 else 16
    return grey_tiff((4, 4), (34665, kind, number, place), data=struct.pack("<Q", 24) + data)


def zeros(count: int) -> bytes:
    """Return at least so many zeros, and at most 4 MB more, packed by deflate; without the sum at the end."""
    packer = zlib.compressobj(9)
    first = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 22)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + piece * -(-count // (1 << 22)) + b"\3\0"


def crowded_tags(count: int, size: int, *, big: bool = False) -> bytes:
    """Return a TIFF file of many tags that all point to the same bytes."""
    more = [(40000 + tag, 7, size, 16) for tag in range(count)]
    return grey_tiff((4, 4), *more, data=bytes(size), big=big)


def gif(screen: Size, frame: Size, *, disposal: int = 2, extensions: bytes = b"") -> bytes:
    """Return a GIF file of one frame of any size on a screen of any other."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes((0, 0, 0, 255, 255, 255)) + extensions
    control = b"!\xf9\x04" + bytes((disposal << 2, 0, 0, 0, 0))
    return head + control + b"," + struct.pack("<4HB", 0, 0, *frame, 0) + b"\2\2D\1\0;"


def comments(count: int) -> bytes:
    """Return a GIF comment of many blocks."""
    return b"!\xfe" + (b"\xff" + b"x" * 255) * count + b"\0"


def png(*sizes: Size, frame: Size | None = None, more: bytes = b"") -> bytes:
    """Return a PNG file with a header for each size; with a frame, an animation that clears it (disposal 1)."""
    headers = [png_piece(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0)) for size in sizes]
    if frame is not None:
        control = struct.pack(">IIIIIHHBB", 0, *frame, 0, 0, 1, 1, 1, 0)
        headers.insert(1, png_piece(b"acTL", struct.pack(">II", 2, 0)) + png_piece(b"fcTL", control))
    pixels = png_piece(b"IDAT", zlib.compress(bytes(5)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(headers) + more + pixels + png_piece(b"IEND", b"")


def png_piece(name: bytes, data: bytes) -> bytes:
    """Return a piece of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def exif(count: int, size: int) -> bytes:
    """Return an EXIF block of many tags that all point to the same bytes."""
    return b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + _exif_tags(count, size)


def _exif_tags(count: int, size: int) -> bytes:
    tags = b"".join(struct.pack("<HHII", 40000 + tag, 7, size, 8) for tag in range(count))
    return struct.pack("<H", count) + tags + bytes(4)


def jpeg(block: bytes = b"", *, size: Size | None = None, scans: int = 0) -> bytes:
    """Return a JPEG file with an EXIF block in pieces, of a size that is not its own, and with more, empty scans."""
    stream = io.BytesIO()
    Image.new("L", (16, 16)).save(stream, "JPEG", progressive=bool(scans))
    data = stream.getvalue()
    data = data[:2] + data[data.index(b"\xff\xdb") :]  # without the resolution, which is then looked for in the EXIF
    if size is not None:
        place = data.index(b"\xff\xc2" if scans else b"\xff\xc0") + 5
        data = data[:place] + struct.pack(">HH", size[1], size[0]) + data[place + 4 :]
    pieces = [block[:65000], *(b"Exif\0\0" + block[place : place + 65000] for place in range(65000, len(block), 65000))]
    marks = b"".join(b"\xff\xe1" + struct.pack(">H", len(piece) + 2) + piece for piece in pieces if piece)
    scan = b"\xff\xda" + struct.pack(">H6B", 8, 1, 1, 0, 1, 63, 0)
    return data[:2] + marks + data[2:-2] + scan * scans + b"\xff\xd9"


def exif_pieces(count: int, size: int) -> bytes:
    """Return a JPEG file with an EXIF block in very many pieces."""
    piece = b"Exif\0\0" + bytes(size)
    data = jpeg()
    return data[:2] + (b"\xff\xe1" + struct.pack(">H", len(piece) + 2) + piece) * count + data[2:]


def webp(canvas: Size) -> bytes:
    """Return a WebP animation of one small frame on a canvas of any size up to 16,777,216 pixels a side."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "WEBP", lossless=True)
    side = [struct.pack("<I", value - 1)[:3] for value in (*canvas, 16, 16, 100)]
    frame = bytes(6) + side[2] + side[3] + side[4] + b"\0" + stream.getvalue()[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + side[0] + side[1]
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def eps(size: Size) -> bytes:
    """Return an EPS file, which is a program; nothing may run it, whatever its name."""
    return b"%%!PS-Adobe-3.0 EPSF-3.0\n%%%%BoundingBox: 0 0 %d %d\n%%%%EndComments\nshowpage\n" % size


def zip_directory(entries: int, *, claimed: int, name: int = 1) -> bytes:
    """Return a zip file that is all directory, whose end claims another number of entries."""
    entry = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, *(0,) * 7, name, *(0,) * 6) + b"x" * name
    local = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"x"
    table, number = entry * entries, min(claimed, 65535)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, number, number, len(table), len(local), 0)
    return local + table + end


def tar_headers(entries: int, size: int, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return a gzipped tar file of empty files, each after an extended header of many bytes, or one for all later."""
    filling = gzip.compress(b"x" * (size - 30), 1, mtime=0)
    pieces = []
    for number in range(entries):
        header, file = tarfile.TarInfo("x"), tarfile.TarInfo(f"owl/{number}.png")
        header.type, header.size = kind, size
        words = b"%d comment%d=" % (size, number)
        rest = b"x" * (29 - len(words)) + b"\n" + bytes(-size % 512) + file.tobuf(tarfile.GNU_FORMAT)
        pieces += [gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + words, 1, mtime=0), filling]
        pieces.append(gzip.compress(rest, 1, mtime=0))
    return b"".join(pieces) + gzip.compress(bytes(2 * tarfile.BLOCKSIZE), mtime=0)


def xz_dictionary(data: bytes, code: int = 40) -> bytes:
    """Pack data with xz so that it asks for a dictionary of another size: by default, of four gigabytes."""
    packed = bytearray(lzma.compress(data))
    end = 12 + (packed[12] + 1) * 4 - 4
    packed[16] = code
    packed[end : end + 4] = struct.pack("<I", zlib.crc32(packed[12:end]))
    return bytes(packed)


def hostile_picture(chance: random.Random) -> bytes:
    """Return a picture that asks for more than it should."""
    return chance.choice(_PICTURES)(chance)


def hostile_headers(kind: str, chance: random.Random) -> bytes:
    """Return a zip or tar file that is all directory or headers."""
    entries = chance.choice((*_COUNTS, 20000))
    if kind == "zip":
        return zip_directory(entries, claimed=chance.choice((0, 1, entries)), name=chance.choice((1, 30, 5000)))
    if chance.random() < 0.3:
        return xz_dictionary(bytes(2 * tarfile.BLOCKSIZE), chance.choice((10, 30, 34, 38, 40)))
    size = chance.choice((40, 600, 9000, 900_000))
    return tar_headers(min(entries, 500), size, chance.choice((tarfile.XHDTYPE, tarfile.XGLTYPE)))


def _size(chance: random.Random, sides: tuple[int, ...] = _SIDES) -> Size:
    return chance.choice(sides), chance.choice(sides)


def _bombs() -> tuple[Callable[[random.Random], bytes], ...]:
    short = _SHORT_SIDES
    return (
        lambda c: rle_bmp(_size(c), b"\0\2\xff\xff" * c.choice(_COUNTS), bits=c.choice((4, 8))),
        lambda c: rle_bmp((c.choice((1000, 10**5, 10**6)), 1)),
        lambda c: tiled_tiff(_size(c, (1, 16, 700)), _size(c), how=c.choice(_HOW), big=c.random() < 0.3),
        lambda c: tiled_tiff(_size(c, (1, 16, 700)), _size(c), big=c.random() < 0.3),
        lambda c: grey_tiff((4, 4), (278, 4, 1, c.choice(_SIDES)), data=zlib.compress(bytes(16)), how=_DEFLATE),
        lambda c: grey_tiff((4, 4), (c.choice((258, 282, 339)), c.choice((3, 5)), 9000, 16), data=bytes(99999)),
        lambda c: crowded_tags(c.choice(_COUNTS), c.choice((100, 10_000, 1_000_000)), big=c.random() < 0.3),
        lambda c: named_strips(c.choice((1, 2, 3, 4, 7)), c.choice((*_COUNTS, 200_000, 1_000_000))),
        lambda c: far_tile(_size(c, (1, 16, 700)), _size(c)),
        lambda c: same_tiles(c.choice((1, 50, 500)), c.choice(_SIDES)),
        lambda c: pointed_tags(c.choice((3, 50, 500)), 10**6, kind=c.choice((3, 4, 16)), number=c.choice((1, 2))),
        lambda c: pointed_tags(c.choice(_COUNTS), c.choice((100, 1_000_000)), within=True),
        lambda c: gif(_size(c, short), _size(c, short), disposal=c.randrange(4)),
        lambda c: gif((2, 2), (2, 2), extensions=comments(c.choice(_COUNTS))),
        lambda c: png(_size(c), frame=_size(c)),
        lambda c: png(_size(c, short), _size(c, short), frame=_size(c, short)),
        lambda c: png((1, 1), more=png_piece(b"eXIf", exif(c.choice(_COUNTS), c.choice((100, 1_000_000))))),
        lambda c: png((1, 1), more=png_piece(b"eXIf", b"Exif\0\0" * c.choice((1, 200_000)))),
        lambda c: jpeg(exif(c.choice(_COUNTS), c.choice((100, 60_000, 500_000)))),
        lambda c: exif_pieces(c.choice((*_COUNTS, 100_000)), c.choice((1, 10, 100))),
        lambda c: jpeg(size=_size(c, short), scans=c.choice((1, 10, 150, 5000))),
        lambda c: webp(_size(c, tuple(side for side in _SIDES if side < 1 << 24))),
        lambda c: b"P%d %d %d 255\n" % (c.choice((2, 3, 5, 6)), *_size(c)) + b"#\n" * c.choice(_COUNTS) + b"1 " * 999,
        lambda c: b"P2 10 10 255\n" + b"#\n" * c.choice((1, 900, 400_000)) + b"1 " * 100,
        lambda c: eps(_size(c)),
    )


_PICTURES = _bombs()
