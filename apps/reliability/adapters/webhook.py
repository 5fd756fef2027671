"""Posts one signed letter to one address. Redirects are not followed.

The signature is `Polar-Signature: t=<unix>,v1=<hex>`, an HMAC-SHA256 of
`<unix>.<body>` under the webhook's secret.
"""

import hashlib
import hmac

import httpx

from apps.common import clock, egress
from apps.common.errors import UpstreamError
from apps.gateway.ports import Permit
from apps.reliability.ports import Letter

SECONDS = 10.0


class Courier:
    """Spends the permit and posts."""

    def post(self, permit: Permit, letter: Letter) -> int:
        """Return the status of the answer. Raises: UpstreamError, EgressRefused."""
        body = letter.arguments["body"].encode()
        permit.spend(letter.arguments)
        at = int(clock.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "Polar-Delivery": letter.delivery,
            "Polar-Signature": signature(letter.key.reveal(), at, body),
        }
        local = [letter.local] if letter.local else []
        try:
            with egress.client(local=local, timeout=SECONDS) as http:
                status = http.post(
                    letter.arguments["url"], content=body, headers=headers
                ).status_code
        except httpx.HTTPError as error:
            raise UpstreamError(f"the webhook did not answer: {error}") from error
        if not 200 <= status < 300:
            raise UpstreamError(f"the webhook answered {status}")
        return status


def signature(secret: str, at: int, body: bytes) -> str:
    """Sign a body as of one second."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"
