"""The S3 sink: a bucket whose object lock lets nobody change what it has.

Hides: one object per part of the log, named by its first and last number, in a
folder per epoch, so that what a recovery gave up stays beside what followed.
Invariants: an object is never written over (`If-None-Match: *`, and the lock); the
acknowledgement is read from the names that the bucket lists, and ends at a gap.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode, urlsplit

import httpx

from apps.audit.adapters.sigv4 import Signer
from apps.audit.errors import SinkRefused
from apps.audit.ports import Keeping, Line
from apps.common import clock, egress
from apps.common.errors import Denied

FIRST_EPOCH = "first"
_PART = re.compile(r"(\d{16})-(\d{16})\.jsonl$")
_FOLDER = re.compile(r"(\d{6})-(\d{16})-([a-z0-9]+)/$")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where the bucket is, with which key it is written, how long it locks."""

    url: str
    region: str
    key_id: str
    secret: str
    days: int
    local: tuple[str, ...] = ()


class S3Sink:
    """Writes locked objects. Off without a URL."""

    #: One object a minute at most, unless a part fills before.
    patience_seconds = 60.0

    def __init__(self, bucket: Callable[[], Bucket]) -> None:
        self._bucket = bucket
        #: The bucket and folder that were listed last, and the part reached there.
        self._hint: tuple[tuple[str, str], str] | None = None

    def is_on(self) -> bool:
        return bool(self._bucket().url)

    def keeping(self) -> Keeping:
        """Read the newest object's retention back from the bucket."""
        folder = self._folder()
        newest = "" if folder is None else next(iter([*self._parts(folder)][-1:]), "")
        if not newest:
            return Keeping(is_immutable=False, detail="the bucket holds nothing yet")
        text = self._send("GET", newest, {"retention": ""}).text
        mode, until = _one("Mode", text), _one("RetainUntilDate", text)
        locked = mode == "COMPLIANCE" and until > f"{clock.now():%FT%T}"
        detail = f"{mode} until {until[:10]}" if mode else "objects are not locked"
        return Keeping(is_immutable=locked, detail=detail)

    def last_contiguous_seq(self) -> int | None:
        if not self.is_on():
            return None
        folder = self._folder()
        if folder is None:
            return -1
        last = _numbers(_FOLDER, folder)[1] - 1
        start, place = "", (self._bucket().url, folder)
        if self._hint is not None and self._hint[0] == place:
            start = self._hint[1]
            last = _numbers(_PART, start)[1]
        for key in self._parts(folder, after=start):
            low, high = _numbers(_PART, key)
            if low != last + 1:
                break
            last, start = high, key
        self._hint = (place, start) if start else None
        return last

    def append(self, lines: Sequence[Line]) -> int:
        folder = self._folder() or self._begin(0, 0, FIRST_EPOCH)
        name = f"{folder}{lines[0].seq:016d}-{lines[-1].seq:016d}.jsonl"
        self._put(name, "".join(f"{line.text}\n" for line in lines).encode())
        return lines[-1].seq

    def fork(self, *, epoch: str, seq: int) -> None:
        newest = self._folder()
        if newest is not None and f"-{epoch}/" in newest:
            return
        number = 0 if newest is None else _numbers(_FOLDER, newest)[0] + 1
        self._begin(number, seq, epoch)

    def _begin(self, number: int, seq: int, epoch: str) -> str:
        folder = f"{self._prefix()}{number:06d}-{seq:016d}-{epoch}/"
        self._put(f"{folder}begun", f"{epoch} from event {seq}\n".encode())
        return folder

    def _folder(self) -> str | None:
        found = [
            name
            for name in self._list(self._prefix(), "CommonPrefixes", delimiter="/")
            if _FOLDER.search(name)
        ]
        return max(found) if found else None

    def _parts(self, folder: str, after: str = "") -> Iterator[str]:
        for key in self._list(folder, "Contents", after=after):
            if _PART.search(key):
                yield key

    def _list(self, prefix: str, inside: str, **more: str) -> Iterator[str]:
        """Name what the bucket holds, in order, page after page."""
        query = {"list-type": "2", "prefix": prefix}
        if "delimiter" in more:
            query["delimiter"] = more["delimiter"]
        if more.get("after"):
            query["start-after"] = more["after"]
        word = "Prefix" if inside == "CommonPrefixes" else "Key"
        while True:
            text = self._send("GET", "", query).text
            for block in re.findall(f"<{inside}>(.*?)</{inside}>", text, re.DOTALL):
                yield html.unescape(_one(word, block))
            token = html.unescape(_one("NextContinuationToken", text))
            if _one("IsTruncated", text) != "true" or not token:
                return
            query["continuation-token"] = token

    def _put(self, key: str, body: bytes) -> None:
        until = clock.now() + timedelta(days=self._bucket().days)
        sums = hashlib.sha256(body).digest(), hashlib.md5(body, usedforsecurity=False)
        more = {
            "Content-MD5": base64.b64encode(sums[1].digest()).decode(),
            "If-None-Match": "*",
            "x-amz-checksum-sha256": base64.b64encode(sums[0]).decode(),
            "x-amz-object-lock-mode": "COMPLIANCE",
            "x-amz-object-lock-retain-until-date": f"{until:%Y-%m-%dT%H:%M:%SZ}",
        }
        self._send("PUT", key, {}, body=body, more=more)

    def _send(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        *,
        body: bytes = b"",
        more: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Ask the bucket. Raises: SinkRefused in words."""
        bucket = self._bucket()
        url = f"{self._root()}/{key}" + (f"?{urlencode(query)}" if query else "")
        signer = Signer(bucket.key_id, bucket.secret, bucket.region)
        headers = signer.headers(
            method, url, body=body, at=clock.now(), more=more or {}
        )
        try:
            with egress.client(local=bucket.local) as client:
                answer = client.request(method, url, content=body, headers=headers)
        except (httpx.HTTPError, Denied) as error:
            raise SinkRefused(f"The bucket cannot be reached: {error}") from error
        if answer.status_code >= 300:
            said = _one("Code", answer.text) or answer.reason_phrase
            raise SinkRefused(f"The bucket answered {answer.status_code} {said}")
        return answer

    def _root(self) -> str:
        """The bucket's own address: scheme, host and its name."""
        parts = urlsplit(self._bucket().url)
        name = parts.path.strip("/").split("/")[0]
        return f"{parts.scheme}://{parts.netloc}/{name}"

    def _prefix(self) -> str:
        below = urlsplit(self._bucket().url).path.strip("/").split("/")[1:]
        return "".join(f"{part}/" for part in below)


def _numbers(pattern: re.Pattern[str], name: str) -> tuple[int, int]:
    found = pattern.search(name)
    if found is None:
        raise SinkRefused(f"The bucket holds {name!r}, which is none of ours")
    return int(found[1]), int(found[2])


def _one(tag: str, text: str) -> str:
    """Return the text of the first such element; these answers nest none."""
    found = re.search(f"<{tag}>([^<]*)</{tag}>", text)
    return found[1] if found else ""
