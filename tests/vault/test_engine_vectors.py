"""Known answers of AES-256-GCM, and the shapes of forgery, through our envelope.

Source: D. McGrew and J. Viega, "The Galois/Counter Mode of Operation", appendix B,
test cases 13, 14 and 16; Wycheproof's aes_gcm_test, all tests with 256-bit keys
(`vectors/`). The forgeries beside them are made here.
"""

import json
from pathlib import Path

import pytest

from apps.vault.engine import envelope
from apps.vault.errors import SecretUnreadable

H = bytes.fromhex
ZERO = bytes(32)
FEED = H("feffe9928665731c6d6a8f9467308308" * 2)
NONCE = H("cafebabefacedbaddecaf888")
DATA = H("feedfacedeadbeeffeedfacedeadbeefabaddad2")
PLAIN = H(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
SEALED = H(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
)
TAG = H("76fc6ece0f4e1768cddf8853bb2d551b")
KNOWN = [
    (ZERO, bytes(12), b"", b"", b"", H("530f8afbc74536b9a963b4f1c4cb738b")),
    (
        ZERO,
        bytes(12),
        b"",
        bytes(16),
        H("cea7403d4d606b6e074ec5d3baf39d18"),
        H("d0d1c8a799996bf0265b98b5d48ab919"),
    ),
    (FEED, NONCE, DATA, PLAIN, SEALED, TAG),
]


def opened(key, nonce, data, sealed):
    text = f"pv1.{envelope._to_text(nonce)}.{envelope._to_text(sealed)}"
    return envelope._decrypt(key, text, data)


@pytest.mark.parametrize(("key", "nonce", "data", "plain", "sealed", "tag"), KNOWN)
def test_known_answers_open(key, nonce, data, plain, sealed, tag):
    assert opened(key, nonce, data, sealed + tag) == plain


@pytest.mark.parametrize("bit", range(128))
def test_a_tag_with_one_bit_changed_does_not_open(bit):
    wrong = bytearray(TAG)
    wrong[bit // 8] ^= 1 << bit % 8

    with pytest.raises(SecretUnreadable):
        opened(FEED, NONCE, DATA, SEALED + bytes(wrong))


@pytest.mark.parametrize(
    ("nonce", "data", "sealed"),
    [
        (NONCE, DATA, SEALED + bytes(16)),
        (NONCE, DATA, SEALED + b"\xff" * 16),
        *((NONCE, DATA, SEALED + TAG[:size]) for size in range(16)),
        (NONCE, DATA, SEALED + TAG + b"\0"),
        (NONCE, DATA, b""),
        (NONCE, b"", SEALED + TAG),
        (NONCE, DATA + b"\0", SEALED + TAG),
        (NONCE, DATA, SEALED[1:] + TAG),
        (b"", DATA, SEALED + TAG),
        (NONCE[:8], DATA, SEALED + TAG),
        (NONCE + bytes(4), DATA, SEALED + TAG),
        (bytes(12), DATA, SEALED + TAG),
    ],
)
def test_forged_shapes_do_not_open(nonce, data, sealed):
    with pytest.raises(SecretUnreadable):
        opened(FEED, nonce, data, sealed)


WYCHEPROOF = Path(__file__).parent / "vectors" / "wycheproof_aes_256_gcm.json"
CASES = json.loads(WYCHEPROOF.read_text())["tests"]
OURS, FOREIGN = 96, "a nonce of another size than ours"


def verdict(case) -> str:
    """What the envelope must say: only a valid one with our nonce size opens."""
    return case["result"] if len(case["iv"]) * 4 == OURS else FOREIGN


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["tcId"]))
def test_wycheproof_verdict(case):
    sealed = H(case["ct"]) + H(case["tag"])
    asked = (H(case["key"]), H(case["iv"]), H(case["aad"]), sealed)

    if verdict(case) == "valid":
        assert opened(*asked) == H(case["msg"])
        return
    with pytest.raises(SecretUnreadable):
        opened(*asked)


def test_wycheproof_covers_both_verdicts_and_foreign_nonces():
    counted = [verdict(case) for case in CASES]

    assert (counted.count("valid"), counted.count("invalid")) == (39, 27)
    assert counted.count(FOREIGN) == len(CASES) - 66 > 30
