"""A ciphertext opens in its own place and nowhere else."""

import base64
import random
from dataclasses import replace
from uuid import UUID

import pytest

from apps.common.ids import new_id
from apps.vault import ports
from apps.vault.engine import envelope
from apps.vault.engine.envelope import Place
from apps.vault.errors import SecretUnreadable
from tests.vault.conftest import make_key

PLACE = Place(new_id(), new_id(), "provider.api_key")
DATA_KEY = envelope.new_data_key()


def flip(text: str, at: int) -> str:
    other = "A" if text[at] != "A" else "B"
    return text[:at] + other + text[at + 1 :]


@pytest.fixture
def sealed():
    return envelope.seal("value-of-the-secret", place=PLACE, data_key=DATA_KEY)


@pytest.fixture
def key():
    return ports.parse_ring(f"k1:{make_key()}").primary


def test_value_opens_in_its_place(sealed):
    opened = envelope.open_value(sealed, place=PLACE, data_key=DATA_KEY)

    assert opened == "value-of-the-secret"


@pytest.mark.parametrize(
    "change",
    [{"install_id": new_id()}, {"secret_id": new_id()}, {"purpose": "other"}],
)
def test_value_in_another_place_does_not_open(sealed, change):
    with pytest.raises(SecretUnreadable):
        envelope.open_value(sealed, place=replace(PLACE, **change), data_key=DATA_KEY)


def test_wrap_opens_for_its_recipient(key):
    wrapped = envelope.wrap(DATA_KEY, place=PLACE, key=key)

    assert envelope.unwrap(wrapped, place=PLACE, key=key) == DATA_KEY


def test_wrap_under_another_name_of_the_same_key_does_not_open(key):
    wrapped = envelope.wrap(DATA_KEY, place=PLACE, key=key)

    with pytest.raises(SecretUnreadable):
        envelope.unwrap(wrapped, place=PLACE, key=replace(key, kid="k2"))


def test_wrap_of_another_row_does_not_open(key):
    wrapped = envelope.wrap(DATA_KEY, place=PLACE, key=key)

    with pytest.raises(SecretUnreadable):
        envelope.unwrap(wrapped, place=replace(PLACE, secret_id=new_id()), key=key)


def test_wrap_does_not_pass_for_a_value(key):
    wrapped = envelope.wrap(DATA_KEY, place=PLACE, key=key)

    with pytest.raises(SecretUnreadable):
        envelope.open_value(wrapped, place=PLACE, data_key=key.subkey("vault/wrap"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "pv0" + text[3:],
        lambda text: "pv2" + text[3:],
        lambda text: text[4:],
        lambda text: "",
        lambda text: "pv1",
        lambda text: "pv1..",
        lambda text: text + ".AAAA",
        lambda text: text.replace(".", "!", 1),
        lambda text: text[:-1],
        lambda text: "pv1.AAAA." + text.split(".")[2],
        lambda text: ".".join(text.split(".")[:2]) + ".AAAA",
        lambda text: text + "%",
    ],
)
def test_damaged_or_foreign_envelope_does_not_open(sealed, damage):
    with pytest.raises(SecretUnreadable):
        envelope.open_value(damage(sealed), place=PLACE, data_key=DATA_KEY)


def test_every_changed_character_is_noticed(sealed):
    for at in range(len("pv1."), len(sealed) - 1):
        if sealed[at] == ".":
            continue
        with pytest.raises(SecretUnreadable):
            envelope.open_value(flip(sealed, at), place=PLACE, data_key=DATA_KEY)


def test_ten_thousand_moves_between_rows_are_all_noticed(key):
    rng = random.Random(20260101)
    rows = []
    for _ in range(100):
        place = Place(PLACE.install_id, new_id(), rng.choice(["a", "b"]))
        data_key = envelope.new_data_key()
        value = envelope.seal("v", place=place, data_key=data_key)
        rows.append((place, value, envelope.wrap(data_key, place=place, key=key)))
    opened = 0

    for _ in range(10_000):
        (here, value, wrapped), (other, value2, wrapped2) = rng.sample(rows, 2)
        moved = rng.choice(
            [
                (here, value, wrapped2),
                (here, value2, wrapped),
                (other, value, wrapped),
                (here, value2, wrapped2),
            ]
        )
        opened += opens(*moved, key)

    assert opened == 0


def opens(place, value, wrapped, key) -> bool:
    try:
        data_key = envelope.unwrap(wrapped, place=place, key=key)
        envelope.open_value(value, place=place, data_key=data_key)
    except SecretUnreadable:
        return False
    return True


def test_nonces_do_not_repeat():
    sealed = [envelope.seal("v", place=PLACE, data_key=DATA_KEY) for _ in range(20_000)]

    assert len({text.split(".")[1] for text in sealed}) == len(sealed)


def test_equal_values_look_different():
    one = envelope.seal("v", place=PLACE, data_key=DATA_KEY)
    two = envelope.seal("v", place=PLACE, data_key=DATA_KEY)

    assert one.split(".")[2] != two.split(".")[2]


@pytest.mark.parametrize("value", ["x", "ключ 🔑", "a\nb\0c", "y" * 10_000])
def test_any_text_comes_back_as_it_was(value):
    sealed = envelope.seal(value, place=PLACE, data_key=DATA_KEY)

    assert envelope.open_value(sealed, place=PLACE, data_key=DATA_KEY) == value


def test_envelope_written_before_still_opens():
    """The form on disk is a promise: these texts were written by pv1."""
    key = ports.parse_ring(f"k1:{base64.b64encode(bytes(range(32))).decode()}").primary
    place = Place(UUID(int=1), UUID(int=2), "provider.api_key")
    wrapped = (
        "pv1.nsfGLKKsAZy46bmW."
        "Gz2GgFeSusy64__qnfBP6ylovSFXYjt9rqcNfyH6zX_wDz1LFMuOzfeVdAbqDSK9"
    )
    sealed = "pv1.oggpIEA-iMTqsLRS.k1az1ctNTCXzf89FLxvVy47kvchqZJxrFIPo-w"

    data_key = envelope.unwrap(wrapped, place=place, key=key)

    assert envelope.open_value(sealed, place=place, data_key=data_key) == "golden value"
    assert key.fingerprint("golden value") == "e563ed1c73961a63"
