from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from concept_tuning.diagnostics.embedding import Embedding
from concept_tuning.diagnostics.thumbnails import LOSSLESS, Thumbnails, pack_thumbnails
from concept_tuning.figures.embedding import embedding_figure
from concept_tuning.figures.embedding_pictures import add_pictures, chosen_places, mark_chosen, patch_gallery
from figures.test_embedding import BEFORE, KEYS, ONE, POINTS, TWO, embedding


def patches(**changes: object) -> Embedding:
    fields: dict[str, object] = {
        "kind": "concepts",
        "picture": np.array([0, 0, 2]),
        "concept": np.array([0, 4, 0]),
        "boxes": np.array([[0, 0, 4, 4], [4, 0, 8, 4], [4, 4, 8, 8]], np.float32),
        "image_size": 8,
    }
    return embedding(BEFORE, ONE, **{**fields, **changes})


def thumbnails(keys: tuple[str, ...] = KEYS) -> Thumbnails:
    """Pictures of 16 pixels, each quarter of one colour: 10, 20, 30, 40 and ten times the place of the key."""
    quarters = np.kron(np.array([[10, 20], [30, 40]]), np.ones((8, 8), int))[..., None].repeat(3, 2)
    images = np.stack([quarters + 50 * KEYS.index(key) for key in keys]).astype(np.uint8)
    return pack_thumbnails(keys, images, np.zeros(len(keys), np.int64), quality=LOSSLESS)


def shown(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


def test_clicked_points_are_found_by_what_the_figure_says_of_them() -> None:
    assert chosen_places(embedding(ONE), ["c.png", "a.png", "gone.png"]) == [0, 2]
    # A browser gives lists back, and may give numbers as text.
    assert chosen_places(patches(), [["a.png", "4"], ("c.png", 0), ["c.png", 7]]) == [1, 2]
    for result in (embedding(ONE, TWO), patches()):
        data = [name for trace in embedding_figure(result).data for name in trace.customdata]
        assert chosen_places(result, data) == [0, 1, 2]


@pytest.mark.parametrize("colour", ["class", "run", "right"])
def test_the_chosen_stand_out_in_every_panel(colour: str) -> None:
    result = embedding(BEFORE, ONE, TWO)
    figure = mark_chosen(embedding_figure(result, colour=colour), result, [2])
    marked = [trace.customdata[at] for trace in figure.data for at in trace.selectedpoints]
    assert marked == ["c.png"] * 3
    plain = embedding_figure(result)
    assert mark_chosen(plain, result, []).data[0].selectedpoints is None


def beside(image, points: np.ndarray = POINTS) -> tuple[float, float]:
    """Return the point that a picture on the map lies nearest to."""
    middle = np.array([image.x + image.sizex / 2, image.y + image.sizey / 2])
    x, y = points[int(np.abs(points - middle).max(1).argmin())]
    return float(x), float(y)


def covers(image, point: np.ndarray) -> bool:
    """Whether a picture on the map lies on a point."""
    return bool(0 < point[0] - image.x < image.sizex and 0 < point[1] - image.y < image.sizey)


def test_pictures_lie_beside_their_points_and_not_on_each_other() -> None:
    result = embedding(ONE)
    figure = add_pictures(embedding_figure(result), result, thumbnails())
    at = {beside(image): shown(image.source)[0, 0, 0] for image in figure.layout.images}
    assert at == {(0, 1): 10, (2, 3): 60, (-4, 5): 110}
    for image in figure.layout.images:
        reach = figure.layout.xaxis.range[1] + 1e-9
        assert max(abs(image.x + image.sizex), abs(image.y + image.sizey)) <= reach, "it stays within the panel"
    near = np.array([[0, 1], [0.1, 1], [-4, 5]], np.float32)
    close = embedding(type(ONE)(**{**vars(ONE), "points": near}))
    assert len(add_pictures(embedding_figure(close), close, thumbnails()).layout.images) == 2
    assert len(add_pictures(embedding_figure(result), result, thumbnails(), most=1).layout.images) == 1


def test_a_picture_lies_where_it_covers_no_point() -> None:
    points = np.array([[0, 0], [0.5, 0.5], [-0.5, 0.5]], np.float32)
    result = embedding(type(ONE)(**{**vars(ONE), "points": points * 6}))
    (image,) = add_pictures(embedding_figure(result), result, thumbnails(("a.png",))).layout.images
    assert not any(covers(image, point * 6) for point in points)
    crowd = np.array([[0, 0], [0.3, 0.3], [-4, 5]], np.float32)
    result = embedding(type(ONE)(**{**vars(ONE), "points": crowd}))
    (image,) = add_pictures(embedding_figure(result), result, thumbnails(("a.png",))).layout.images
    assert not any(covers(image, point) for point in crowd)


def test_every_panel_has_its_own_and_a_picture_that_was_not_kept_is_passed_over() -> None:
    result = embedding(ONE, TWO)
    figure = add_pictures(embedding_figure(result), result, thumbnails(("b.png",)))
    first, second = figure.layout.images
    assert (first.xref, beside(first)) == ("x", (2, 3))
    assert (second.xref, beside(second, -POINTS)) == ("x2", (-2, -3))


def test_where_no_picture_was_kept_the_map_stays_as_it_is() -> None:
    nothing = pack_thumbnails((), np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, np.int64))
    assert add_pictures(embedding_figure(embedding(ONE)), embedding(ONE), nothing).layout.images == ()


def test_of_patches_the_patch_is_shown() -> None:
    result = patches()
    figure = add_pictures(embedding_figure(result), result, thumbnails())
    own = [image for image in figure.layout.images if image.xref == "x2"]
    tops = {beside(image): np.unique(shown(image.source)).tolist() for image in own}
    assert tops == {(0, 1): [10], (2, 3): [20], (-4, 5): [140]}


@pytest.mark.parametrize(
    ("box", "size", "colours"),
    [
        ([-1e9, -1e9, 1e9, 1e9], 8, [10, 20, 30, 40]),
        ([1e9, 1e9, 2e9, 2e9], 8, [40]),
        ([np.nan, -np.inf, np.inf, 0], 8, [10, 20]),
        ([8, 8, 0, 0], 8, [40]),
        ([4, 4, 8, 8], 0, [40]),
        ([4, 4, 8, 8], -8, [40]),
    ],
)
def test_of_a_patch_beyond_its_picture_the_part_within_is_shown(box, size: int, colours: list[int]) -> None:
    result = patches(boxes=np.array([box] * 3, np.float32), image_size=size)
    figure = add_pictures(embedding_figure(patches()), result, thumbnails(("a.png",)))
    for image in figure.layout.images:
        assert np.unique(shown(image.source)).tolist() == colours
        assert max(shown(image.source).shape) <= 16
    assert figure.layout.images


def test_the_gallery_of_patches_frames_them() -> None:
    figure = patch_gallery(patches(), [1, 2], thumbnails())
    points = next(trace for trace in figure.data if trace.name == "pictures")
    assert list(points.customdata) == ["a.png", "c.png"]
    frame = next(trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines")
    # The upper right quarter of the first picture, whose sides are 1.
    assert (min(frame.x[:5]) % 1, max(frame.x[:5]) % 1, np.ptp(frame.y[:5])) == pytest.approx((0.5, 0, 0.5))
    assert "concept 5" in " ".join(note.text for note in figure.layout.annotations)
    with pytest.raises(ValueError, match="whole pictures"):
        patch_gallery(embedding(ONE), [0], thumbnails())
