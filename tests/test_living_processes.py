"""Processes that tests start as bystanders do not outlive them, even where a test fails."""

from __future__ import annotations

import pytest
from living_processes import living_processes


@pytest.mark.parametrize("fault", [KeyError, KeyboardInterrupt])
def test_bystanders_end_with_a_block_that_fails(fault: type[BaseException]) -> None:
    with pytest.raises(fault), living_processes({"any": [], "another": []}) as children:  # noqa: PT012
        assert [child.poll() for child in children.values()] == [None, None]
        raise fault
    assert None not in [child.poll() for child in children.values()]
