"""One value has one text, and the text is RFC 8785's."""

import hashlib
import math

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from apps.common import canonical
from apps.common.errors import Invalid


def test_rfc_8785_example_is_written_as_the_rfc_says():
    """Source: RFC 8785 section 3.2.2 and 3.2.3."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27],
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }

    assert canonical.dumps(value) == (
        '{"literals":[null,true,false],'
        '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf_16_units():
    """Source: RFC 8785 section 3.2.3."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]

    text = canonical.dumps(dict.fromkeys(keys, 0))

    order = [
        text.index(key)
        for key in ["1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    ]
    assert order == sorted(order)
    assert text.startswith('{"\\r":0')


def test_order_of_insertion_does_not_matter():
    assert canonical.dumps({"b": 1, "a": 2}) == canonical.dumps({"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2**53 - 1, "9007199254740991"),
        (2**53, '"9007199254740992"'),
        (-(2**64), '"-18446744073709551616"'),
        (True, "true"),
        (-0.0, "0"),
    ],
)
def test_numbers_that_would_lose_digits_become_text(number, text):
    assert canonical.dumps({"n": number}) == f'{{"n":{text}}}'


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, object(), b"x"])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(Invalid):
        canonical.dumps({"v": value})


def test_lone_surrogate_is_refused():
    with pytest.raises(Invalid):
        canonical.dumps("\ud800")


def test_arguments_keep_integers_of_any_size():
    assert canonical.arguments({"b": 2**70, "a": "ж"}) == (f'{{"a":"ж","b":{2**70}}}')


@pytest.mark.parametrize("value", [math.nan, {"a": {1, 2}}])
def test_arguments_that_are_not_json_are_refused(value):
    with pytest.raises(Invalid):
        canonical.arguments(value)


def test_digest_of_text_is_its_sha256():
    assert canonical.digest("abc") == hashlib.sha256(b"abc").hexdigest()


def test_digest_of_a_value_is_that_of_its_canonical_text():
    assert canonical.digest({"b": 1, "a": 2}) == canonical.digest('{"a":2,"b":1}')


WORDS = st.text(st.characters(exclude_categories=["Cs"]))
SIMPLE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner),
)


@given(SIMPLE)
def test_any_value_is_written_as_the_reference_writes_it(value: object):
    assert canonical.dumps(value) == rfc8785.dumps(value).decode()


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(Invalid):
        canonical.dumps({"text": "\ud800"})
