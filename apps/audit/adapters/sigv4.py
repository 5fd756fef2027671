"""Signs requests to S3 as its vendors check them.

Only what a sink needs: headers, no streaming, no session tokens. Held by the
vendor's own published examples.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl, quote, urlsplit


@dataclass(frozen=True, slots=True)
class Signer:
    """A key of the vendor, and the region it is used in."""

    key_id: str
    secret: str
    region: str

    def headers(
        self,
        method: str,
        url: str,
        *,
        body: bytes,
        at: datetime,
        more: Mapping[str, str],
    ) -> dict[str, str]:
        """Return all headers of a request, the signature among them."""
        parts = urlsplit(url)
        stamp = f"{at:%Y%m%dT%H%M%SZ}"
        digest = hashlib.sha256(body).hexdigest()
        named = {name.lower(): " ".join(value.split()) for name, value in more.items()}
        named |= {
            "host": parts.netloc,
            "x-amz-content-sha256": digest,
            "x-amz-date": stamp,
        }
        signed = ";".join(sorted(named))
        canonical = "\n".join(
            [
                method,
                quote(parts.path or "/", safe="/-_.~%"),
                canonical_query(parts.query),
                *(f"{name}:{named[name]}" for name in sorted(named)),
                "",
                signed,
                digest,
            ]
        )
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, _hex(canonical.encode())])
        mark = hmac.new(self._key(stamp[:8]), text.encode(), hashlib.sha256)
        named["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{scope},"
            f"SignedHeaders={signed},Signature={mark.hexdigest()}"
        )
        return named

    def _key(self, day: str) -> bytes:
        key = f"AWS4{self.secret}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def canonical_query(query: str) -> str:
    pairs = [
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _hex(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
