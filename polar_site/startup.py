"""What the web process settles before it serves its first request."""

import ipaddress
import logging

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from apps.access import services as access
from apps.channels import services as channels
from apps.common import settling

logger = logging.getLogger(__name__)


def prepare() -> None:
    """Check the address, make `POLAR_UI_API_SECRET` the token of its name, and load
    what answers the vendors that call us: they wait for seconds, not for longer.
    All pages are loaded too, and what is loaded then is settled.

    Raises: ImproperlyConfigured for an open address without protection.
    """
    check_bind(settings.POLAR_BIND)
    try:
        access.sync_ui_secret(secret=settings.POLAR_UI_API_SECRET)
        channels.warm_up()
    except DatabaseError:
        logger.exception("the store is not ready", extra={"event": "web.no_store"})
    settling.load_pages()
    settling.freeze()


def check_bind(address: str) -> None:
    """Refuse an address that strangers reach, unless TLS stands before it and
    the API has a secret of its own."""
    if _is_loopback(address):
        return
    if not settings.POLAR_BEHIND_TLS:
        raise ImproperlyConfigured(
            f"POLAR_BIND is {address}: put a TLS proxy before it and set "
            "POLAR_BEHIND_TLS=true, or bind to 127.0.0.1."
        )
    if len(settings.POLAR_UI_API_SECRET) < access.SHORTEST_UI_SECRET:
        raise ImproperlyConfigured(
            f"POLAR_BIND is {address}: set POLAR_UI_API_SECRET to at least "
            f"{access.SHORTEST_UI_SECRET} random characters first."
        )


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
