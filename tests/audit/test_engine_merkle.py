"""The tree against a naive reading of RFC 6962, and proofs that do not lie."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.engine import merkle

leaves_of = st.lists(st.binary(max_size=8), max_size=300).map(
    lambda items: [merkle.leaf_hash(item) for item in items]
)


def naive(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    left, right = naive(leaves[:middle]), naive(leaves[middle:])
    return sha256(b"\x01" + left + right).digest()


@given(leaves_of, st.lists(st.integers(1, 90), max_size=8))
def test_frontier_when_grown_in_batches_then_root_is_naive(
    leaves: list[bytes], cuts: list[int]
) -> None:
    frontier, at = merkle.Frontier(), 0
    for cut in [*cuts, len(leaves)]:
        frontier = frontier.copy()
        frontier.append(leaves[at : at + cut])
        at += cut

        assert frontier.root() == naive(leaves[: frontier.size])


@given(leaves_of.filter(bool), st.data())
def test_inclusion_when_proven_then_only_the_leaf_fits(
    leaves: list[bytes], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root = naive(leaves)

    path = merkle.inclusion_path(
        index, len(leaves), lambda low, high: naive(leaves[low:high])
    )

    size = len(leaves)
    assert merkle.root_from_inclusion(leaves[index], index, size, path) == root
    assert merkle.root_from_inclusion(b"x" * 32, index, size, path) != root


@given(leaves_of.filter(bool), st.data())
def test_consistency_when_proven_then_only_the_prefix_fits(
    leaves: list[bytes], data: st.DataObject
) -> None:
    old = data.draw(st.integers(1, len(leaves)))
    before, after = (old, naive(leaves[:old])), (len(leaves), naive(leaves))

    path = merkle.consistency_path(
        old, len(leaves), lambda low, high: naive(leaves[low:high])
    )

    assert merkle.is_consistent(before, after, path)
    assert not merkle.is_consistent((old, b"x" * 32), after, path)


@pytest.mark.parametrize("index, size", [(-1, 3), (3, 3), (0, 0)])
def test_inclusion_when_index_is_outside_then_none(index: int, size: int) -> None:
    assert merkle.root_from_inclusion(b"x" * 32, index, size, []) is None


def test_inclusion_when_path_has_the_wrong_length_then_none() -> None:
    leaf = b"x" * 32

    assert merkle.root_from_inclusion(leaf, 0, 4, [leaf]) is None
    assert merkle.root_from_inclusion(leaf, 0, 1, [leaf]) is None


@pytest.mark.parametrize("old, size", [(5, 3), (2, 3), (1, 2)])
def test_consistency_when_path_is_empty_then_refused(old: int, size: int) -> None:
    assert not merkle.is_consistent((old, b"x" * 32), (size, b"y" * 32), [])


def test_consistency_when_old_is_empty_then_anything_extends_it() -> None:
    assert merkle.consistency_path(0, 5, lambda low, high: b"") == []
    assert merkle.is_consistent((0, merkle.EMPTY_ROOT), (5, b"y" * 32), [])
