"""Health is open and says little; readiness survives degradation."""

import pytest

from apps.access import services as access
from apps.gateway import services as gateway

pytestmark = pytest.mark.django_db


def test_healthz_when_stranger_then_alive(client):
    assert client.get("/healthz").json() == {"status": "alive"}


def test_readyz_when_halted_then_still_ready(client, workspace):
    gateway.halt(by=access.system_principal(), scope="all", reason="drill")

    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert "halts" in answer.json()["degraded"]


def test_home_when_stranger_then_asked_to_sign_in(client):
    assert client.get("/").status_code == 302
