"""Keys are keys, and each use has its own subkey."""

import base64

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from apps.vault import ports
from apps.vault.errors import BadKeyRing
from tests.vault.conftest import make_key


def test_ring_keeps_the_order_of_its_keys():
    ring = ports.parse_ring(f"k2:{make_key()}, k1:{make_key()}")

    assert ring.kids == ["k2", "k1"]


def test_single_key_names_itself_and_always_the_same():
    key = make_key()

    first, second = ports.parse_ring("", key), ports.parse_ring("", key)

    assert first.primary.kid == second.primary.kid
    assert first.primary.kid.startswith("k")


def test_single_key_beside_a_ring_only_decrypts():
    ring = ports.parse_ring(f"k2:{make_key()}", make_key())

    assert (len(ring.keys), ring.primary.kid) == (2, "k2")


def test_single_key_that_stands_in_the_ring_is_not_doubled():
    key = make_key()

    assert ports.parse_ring(f"k1:{key}", key).kids == ["k1"]


def test_no_key_is_an_empty_ring():
    assert ports.parse_ring("", " ").keys == ()


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_both_alphabets_are_read(encode):
    raw = bytes(range(224, 256))

    ring = ports.parse_ring("k1:" + encode(raw).decode().rstrip("="))

    assert ring.primary.material == raw


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("k1:correct horse battery staple", "passphrase"),
        ("k1:hunter2hunter2", "passphrase"),
        ("k1:" + base64.b64encode(b"x" * 16).decode(), "16 bytes"),
        ("k1:" + base64.b64encode(bytes(32)).decode(), "not random"),
        ("k1:" + base64.b64encode(b"ab" * 16).decode(), "not random"),
        (make_key(), "kid2:base64"),
        (f"bad kid:{make_key()}", "kid2:base64"),
        (f"k1:{make_key()},k1:{make_key()}", "twice"),
    ],
    # The keys are random, so they must not name the tests.
    ids=range(8),
)
def test_what_is_no_key_is_refused_with_a_hint(keys, said):
    with pytest.raises(BadKeyRing, match=said):
        ports.parse_ring(keys)


def test_refusal_says_how_to_make_a_key():
    with pytest.raises(BadKeyRing, match=r"os\.urandom\(32\)"):
        ports.parse_ring("", "a passphrase")


def test_refusal_does_not_repeat_the_key():
    with pytest.raises(BadKeyRing) as caught:
        ports.parse_ring("", "my-secret-passphrase!")

    assert "my-secret" not in str(caught.value)


def test_subkeys_share_no_bytes():
    key = ports.parse_ring("", make_key()).primary
    labels = ["vault/wrap", "vault/kcv", "vault/fingerprint", "vault/kid"]

    derived = {key.subkey(label) for label in labels} | {key.material}

    assert len(derived) == len(labels) + 1


def test_subkey_is_hkdf_sha256():
    key = ports.parse_ring("", make_key()).primary
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"vault/wrap")

    assert key.subkey("vault/wrap") == kdf.derive(key.material)


def test_check_value_differs_by_key():
    assert ports.parse_ring("", make_key()).primary.kcv != (
        ports.parse_ring("", make_key()).primary.kcv
    )


def test_key_is_not_in_its_repr():
    text = make_key()
    ring = ports.parse_ring(f"k1:{text}")

    assert text not in repr(ring)
    assert repr(base64.b64decode(text)) not in repr(ring)
