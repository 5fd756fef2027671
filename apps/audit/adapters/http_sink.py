"""The HTTP sink: a log host that counts for itself and refuses a gap.

`GET url` answers {"lastContiguousSeq": n}, -1 for none. `POST url` with lines of
JSON and `Polar-First-Seq` answers the same, or 409 with it when the first line is
not the next one. `POST url` with `Polar-Epoch` tells of an accepted recovery.
`Polar-Immutable: <how>` in an answer says that the host keeps what it has.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from apps.audit.errors import SinkRefused
from apps.audit.ports import Keeping, Line
from apps.common import egress
from apps.common.errors import Denied


@dataclass(frozen=True, slots=True)
class LogHost:
    """Where the host is, the token it wants, and whether it may be inside."""

    url: str
    token: str = ""
    local: tuple[str, ...] = ()


class HttpSink:
    """Posts lines. Off without a URL."""

    patience_seconds = 0.0

    def __init__(self, host: Callable[[], LogHost]) -> None:
        self._host = host

    def is_on(self) -> bool:
        return bool(self._host().url)

    def keeping(self) -> Keeping:
        how = self._send("GET").headers.get("Polar-Immutable", "")
        return Keeping(bool(how), how or "the host does not say that it is immutable")

    def last_contiguous_seq(self) -> int | None:
        return _seq(self._send("GET")) if self.is_on() else None

    def append(self, lines: Sequence[Line]) -> int:
        body = "".join(f"{line.text}\n" for line in lines).encode()
        more = {"Polar-First-Seq": str(lines[0].seq)}
        last = _seq(self._send("POST", body, more))
        if not lines[0].seq - 1 <= last <= lines[-1].seq:
            raise SinkRefused(f"The host acknowledged {last}, which it was not sent")
        return last

    def fork(self, *, epoch: str, seq: int) -> None:
        body = json.dumps({"epoch": epoch, "fork": seq}).encode()
        self._send("POST", body, {"Polar-Epoch": epoch})

    def _send(
        self, method: str, body: bytes = b"", more: dict[str, str] | None = None
    ) -> httpx.Response:
        """Ask the host. Raises: SinkRefused in words."""
        host = self._host()
        headers = {"Content-Type": "application/x-ndjson", **(more or {})}
        if host.token:
            headers["Authorization"] = f"Bearer {host.token}"
        try:
            with egress.client(local=host.local) as client:
                answer = client.request(method, host.url, content=body, headers=headers)
        except (httpx.HTTPError, Denied) as error:
            raise SinkRefused(f"The log host cannot be reached: {error}") from error
        if answer.status_code == httpx.codes.CONFLICT:
            last = _seq(answer)
            raise SinkRefused(
                f"The log host holds events up to {last}", last_contiguous_seq=last
            )
        if answer.status_code >= 300:
            raise SinkRefused(f"The log host answered {answer.status_code}")
        return answer


def _seq(answer: httpx.Response) -> int:
    try:
        said: Any = answer.json()
        return int(said["lastContiguousSeq"])
    except (ValueError, KeyError, TypeError) as error:
        raise SinkRefused("The log host did not say what it holds") from error
