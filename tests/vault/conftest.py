"""Keys, and who asks."""

import base64
import os

import pytest

from apps.common.actor import Actor

ALICE = Actor("human", "alice", "Alice")


def make_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def keys(settings):
    """Configure the ring: `keys(kid1=..., kid2=...)`, first one first."""

    def configure(**ring: str) -> None:
        settings.POLAR_VAULT_KEY = ""
        settings.POLAR_VAULT_KEYS = ",".join(f"{k}:{v}" for k, v in ring.items())

    return configure


@pytest.fixture
def ring(keys):
    """A ring of one fresh key."""
    one = make_key()
    keys(k1=one)
    return one
