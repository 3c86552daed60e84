"""Shapes of decoding."""

from __future__ import annotations

import pytest

from ramify.core.errors import InputError
from ramify.profile.shape import parse_shape


def test_counts_and_prompts():
    shape = parse_shape("10,3,2")
    assert str(shape) == "10,3,2" and shape.num_rows == 6
    assert shape.unique_tokens(4) == 2 * (10 + 3 * 4)
    first, second = shape.prompts(50, seed=0)
    assert len(first) == len(second) == 10 and first != second
    assert shape.prompts(50, seed=0) == [first, second]


@pytest.mark.parametrize("text", ["", "10", "10,3", "10,3,2,1", "10,3,-2", "a,b,c", "10,0,1"])
def test_bad_shapes(text):
    with pytest.raises(InputError, match="shape: expected"):
        parse_shape(text)
