from __future__ import annotations

import numpy as np
from figures.test_embedding import BEFORE, ONE, TWO, embedding

from concept_tuning.report.chosen_points import chosen_pictures, chosen_words


def test_the_chosen_are_counted_and_each_run_with_answers_is_judged_on_them() -> None:
    # Labels are owl, tern, owl; run one says owl, tern, tern, run two tern, tern, owl.
    result = embedding(BEFORE, ONE, TWO)
    assert chosen_words(result, [0, 1, 2]) == [
        "3 pictures: 2 owl, 1 tern.",
        "Groups: 2 sea, 1 land.",
        "Right of 3: one 2, two 2.",
    ]
    assert chosen_words(result, [0])[::2] == ["1 picture: 1 owl.", "Right of 1: one 1, two 0."]
    assert chosen_words(embedding(BEFORE, groups=None), [1]) == ["1 picture: 1 tern."]


def test_patches_of_one_picture_count_it_once() -> None:
    result = embedding(ONE, kind="concepts", picture=np.array([0, 0, 2]), concept=np.array([0, 1, 0]))
    assert chosen_words(result, [0, 1, 2])[0].startswith("3 patches of 2 pictures: ")
    assert [one.key for one in chosen_pictures(result, [2, 1, 0])] == ["c.png", "a.png"]


def test_the_pictures_tell_what_each_run_says() -> None:
    told = chosen_pictures(embedding(BEFORE, ONE, TWO), [0, 1])
    assert [(one.key, one.text) for one in told] == [
        ("a.png", "owl; one ✓; two ✗ tern"),
        ("b.png", "tern; one ✓; two ✓"),
    ]
