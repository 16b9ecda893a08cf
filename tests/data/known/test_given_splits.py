"""What the settings say of the known data sets is what their files give when they are read."""

from __future__ import annotations

import numpy as np
import pytest
from miniatures import opened

from concept_tuning.config import KNOWN_DATA, DataConfig
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.known.opening import known_table
from concept_tuning.data.table import SPLITS
from concept_tuning.settings import GIVES_TEST, GIVES_VALIDATION, IN_ARRAYS

#: It draws validation, and the test where its labels are not there, by whole lesions, and so gives neither for sure.
DRAWS_BY_LESION = "isic"


@pytest.mark.parametrize("name", KNOWN_DATA)
def test_a_split_has_no_share_where_the_files_give_it(name: str, laid_out) -> None:
    table = opened(name, laid_out(name))
    given = set() if table.splits is None else {SPLITS[code] for code in np.unique(table.splits)}
    if name != DRAWS_BY_LESION:
        assert ("val" in given, "test" in given) == (name in GIVES_VALIDATION, name in GIVES_TEST)
    else:
        assert name not in (*GIVES_VALIDATION, *GIVES_TEST)


@pytest.mark.parametrize("name", KNOWN_DATA)
def test_only_pictures_in_arrays_are_read_whatever_their_number_of_pixels(name: str, laid_out) -> None:
    table = known_table(DataConfig(source=name, root=str(laid_out(name)), max_pixels=1))
    if name in IN_ARRAYS:
        assert table.read(0).size > 1
    else:
        with pytest.raises(UnreadableImage, match="max_pixels"):
            table.read(0)
