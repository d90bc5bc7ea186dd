"""Payloads of scorers as JSON and back. Needs no lmms-eval."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.lmms.codec import decode, encode, number

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_goes_in_comes_out(value):
    text = json.dumps(encode(value), allow_nan=False)
    assert decode(json.loads(text)) == value


def test_a_dollar_key_is_no_mark():
    assert decode(encode({"$": "tuple", "of": [1]})) == {"$": "tuple", "of": [1]}


def test_numbers_of_numpy_sets_arrays_and_nan():
    assert encode(np.float64(0.5)) == 0.5
    assert type(encode(np.int64(3))) is int
    assert decode(encode({1, 2})) == {1, 2}
    assert decode(encode(np.array([[1, 2]]))).tolist() == [[1, 2]]
    assert math.isnan(decode(encode(float("nan"))))


def test_a_picture_is_refused():
    with pytest.raises(TypeError, match="Image"):
        from PIL import Image

        encode({"picture": Image.new("RGB", (1, 1))})


def test_the_number_of_a_payload():
    assert number(True) == 1.0
    assert number({"score": 0.25}) == 0.25
    assert number({"hit": 1, "score": 0}, "hit") == 1.0
    assert number({"is_correct": True}) == 1.0
    assert number({"pred": "A"}) is None
    assert number(float("inf")) is None
