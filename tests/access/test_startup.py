"""A site that strangers reach starts only when it is protected."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from polar_site.startup import check_bind


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "[::1]", "localhost"])
def test_bind_when_loopback_then_allowed(address):
    check_bind(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.4", "polar.example"])  # noqa: S104
def test_bind_when_open_without_tls_then_refused(address):
    with pytest.raises(ImproperlyConfigured, match="TLS"):
        check_bind(address)


def test_bind_when_open_without_secret_then_refused(settings):
    settings.POLAR_BEHIND_TLS = True

    with pytest.raises(ImproperlyConfigured, match="POLAR_UI_API_SECRET"):
        check_bind("10.0.0.1")


def test_bind_when_protected_then_allowed(settings):
    settings.POLAR_BEHIND_TLS = True
    settings.POLAR_UI_API_SECRET = "s" * 40

    check_bind("10.0.0.1")
