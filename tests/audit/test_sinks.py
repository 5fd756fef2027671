"""Sinks: contiguous whatever dies or is down, immutable where the bucket says so."""

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.audit import ports, services
from apps.audit.adapters.sigv4 import Signer
from apps.audit.models import Event, SinkCursor
from apps.audit.queries import acknowledged, sink_lag
from apps.common import clock, failpoints
from apps.common.actor import SYSTEM
from apps.common.errors import Invalid
from tests.audit.conftest import Recorder
from tests.audit.test_services import roll_back
from tests.fakes import sink_hosts

pytestmark = pytest.mark.django_db
#: `make chaos` kills the exporter a hundred times.
KILLS = int(os.environ.get("POLAR_SINK_KILLS", "12"))


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def log_host(settings: Any) -> Iterator[sink_hosts.LogHost]:
    host = sink_hosts.LogHost()
    with sink_hosts.served(host) as port:
        settings.POLAR_SINK_HTTP_URL = f"http://127.0.0.1:{port}/log"
        settings.POLAR_SINK_HTTP_TOKEN = host.token
        settings.POLAR_SINK_LOCAL = [f"127.0.0.1:{port}"]
        yield host


@pytest.fixture
def bucket(settings: Any) -> Iterator[sink_hosts.Bucket]:
    made = sink_hosts.Bucket()
    with sink_hosts.served(made) as port:
        settings.POLAR_SINK_S3_URL = f"http://127.0.0.1:{port}/logs/polar/main"
        settings.POLAR_SINK_S3_KEY_ID = made.signer.key_id
        settings.POLAR_SINK_S3_SECRET = made.signer.secret
        settings.POLAR_SINK_S3_REGION = made.signer.region
        settings.POLAR_SINK_LOCAL = [f"127.0.0.1:{port}"]
        yield made


@pytest.fixture
def syslog(settings: Any) -> Iterator[sink_hosts.Syslog]:
    host = sink_hosts.Syslog()
    settings.POLAR_SINK_SYSLOG = f"tcp://127.0.0.1:{host.port}"
    settings.POLAR_SINK_LOCAL = [f"127.0.0.1:{host.port}"]
    yield host
    host.close()


def sequence(lines: list[str]) -> list[int]:
    return [json.loads(line)["metadata"]["sequence"] for line in lines]


def later(seconds: float) -> Any:
    return clock.frozen(clock.now() + timedelta(seconds=seconds))


# --- Each kind ----------------------------------------------------------------


def test_http_host_gets_every_event_once_and_says_how_it_keeps(
    record: Recorder, log_host: sink_hosts.LogHost
) -> None:
    record(600)
    services.seal_all()

    assert services.push_sink("http") == 600
    assert services.push_sink("http") == 0

    assert sequence(log_host.lines) == list(range(600))
    assert ports.sinks()["http"].keeping().is_immutable


def test_http_host_that_lost_its_tail_gets_it_again(
    record: Recorder, log_host: sink_hosts.LogHost
) -> None:
    record(9)
    services.seal_all()
    services.push_sink("http")
    del log_host.lines[4:]

    assert services.push_sink("http") == 5
    assert sequence(log_host.lines) == list(range(9))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda host, settings: setattr(host, "is_down", True), "answered 503"),
        (lambda host, settings: setattr(host, "token", "other"), "answered 401"),
        (
            lambda host, settings: setattr(settings, "POLAR_SINK_LOCAL", []),
            "not a public address",
        ),
    ],
)
def test_http_host_that_refuses_is_named_and_nothing_is_lost(
    record: Recorder,
    log_host: sink_hosts.LogHost,
    settings: Any,
    break_it: Callable[[Any, Any], None],
    words: str,
) -> None:
    record(3)
    services.seal_all()
    break_it(log_host, settings)

    assert services.push_sink("http") == 0
    assert words in SinkCursor.objects.get(name="http").problem
    assert log_host.lines == []


def test_bucket_gets_locked_objects_without_a_gap(
    record: Recorder, bucket: sink_hosts.Bucket
) -> None:
    record(1100)
    services.seal_all()
    assert services.push_sink("s3") == 1000, "the rest may wait for a part to fill"

    with later(61):
        assert services.push_sink("s3") == 100
        keeping = ports.sinks()["s3"].keeping()

    parts = [key for key in sorted(bucket.objects) if key.endswith(".jsonl")]
    lines = [
        line for key in parts for line in bucket.objects[key].decode().splitlines()
    ]
    assert sequence(lines) == list(range(1100))
    assert parts[0].startswith("polar/main/000000-0000000000000000-first/")
    assert keeping.is_immutable
    assert keeping.detail.startswith("COMPLIANCE until")
    assert {mode for mode, _ in bucket.locks.values()} == {"COMPLIANCE"}


def test_bucket_without_a_lock_is_not_called_immutable(
    record: Recorder, bucket: sink_hosts.Bucket
) -> None:
    record(500)
    services.seal_all()
    services.push_sink("s3")
    bucket.locks = dict.fromkeys(bucket.locks, ("GOVERNANCE", "2999-01-01T00:00:00Z"))

    assert not ports.sinks()["s3"].keeping().is_immutable


def test_bucket_with_a_hole_is_filled_from_the_hole(
    record: Recorder, bucket: sink_hosts.Bucket
) -> None:
    record(1500)
    services.seal_all()
    services.push_sink("s3")
    middle = next(key for key in bucket.objects if "0000500-" in key)
    del bucket.objects[middle]
    fresh = type(ports.sinks()["s3"])(ports.sinks()["s3"]._bucket)  # type: ignore[attr-defined,call-arg]

    assert fresh.last_contiguous_seq() == 499


def test_wrong_key_of_the_bucket_is_named(
    record: Recorder, bucket: sink_hosts.Bucket, settings: Any
) -> None:
    settings.POLAR_SINK_S3_SECRET = "another"
    record(500)
    services.seal_all()

    assert services.push_sink("s3") == 0
    assert "SignatureDoesNotMatch" in SinkCursor.objects.get(name="s3").problem


def test_syslog_gets_numbered_messages(
    record: Recorder, syslog: sink_hosts.Syslog
) -> None:
    record(20)
    services.seal_all()

    assert services.push_sink("syslog") == 20
    assert services.push_sink("syslog") == 0
    numbers = [int(re.findall(r'seq="(\d+)"', each)[0]) for each in syslog.messages]
    assert numbers == list(range(20))
    assert syslog.messages[0].startswith("<110>1 ")


def test_syslog_that_is_away_is_named(record: Recorder, settings: Any) -> None:
    settings.POLAR_SINK_SYSLOG = "tcp://127.0.0.1:1"
    settings.POLAR_SINK_LOCAL = ["127.0.0.1:1"]
    record()
    services.seal_all()

    assert services.push_sink("syslog") == 0
    assert "did not take it" in SinkCursor.objects.get(name="syslog").problem


def test_sinks_are_named_with_what_they_say_of_themselves(
    record: Recorder, log_host: sink_hosts.LogHost
) -> None:
    record()
    services.seal_all()
    services.push_sinks()
    assert [(each.name, each.is_immutable) for each in services.sinks()] == [
        ("file", False),
        ("http", True),
    ]

    log_host.is_down = True
    assert "503" in services.sinks()[1].problem


def test_ocsf_lines_hold_what_a_call_used(record: Recorder, tmp_path: Path) -> None:
    record()
    used = {"kind": "model", "tokens_in": 7, "tokens_out": 3, "micros": 12}
    record(type="call.settled", data=used)
    services.seal_all()

    assert services.export_ocsf(tmp_path / "out.jsonl", by=SYSTEM) == 2
    last = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    assert (last["class_uid"], last["unmapped"]["usage"]) == (6003, used)
    with pytest.raises(Invalid, match="exists already"):
        services.export_ocsf(tmp_path / "out.jsonl", by=SYSTEM)


# --- Recovery, kills, an hour away --------------------------------------------


@pytest.mark.parametrize("kind", ["http", "s3", "syslog", "file"])
def test_accepted_recovery_is_told_before_what_follows(
    record: Recorder, request: pytest.FixtureRequest, kind: str
) -> None:
    named = {"http": "log_host", "s3": "bucket", "syslog": "syslog"}
    host = request.getfixturevalue(named[kind]) if kind in named else None
    record(200)
    services.checkpoint()
    with later(61):
        services.push_sink(kind)
    roll_back(100)
    services.begin_epoch(by=SYSTEM, reason="restored")
    record(150)
    services.seal_all()
    with later(122):
        services.push_sink(kind)
        last = ports.sinks()[kind].last_contiguous_seq()

    assert last == 250 == SinkCursor.objects.get(name=kind).last_seq
    if kind == "http":
        assert host.epochs == [services.epoch()]
    if kind == "s3":
        assert len({key.split("/")[2] for key in host.objects}) == 2


@pytest.mark.parametrize("place", ["sink.asked", "sink.appended"])
def test_exporter_killed_again_and_again_leaves_no_gap(
    record: Recorder, settings: Any, place: str
) -> None:
    path, left, dice = Path(settings.POLAR_SINK_FILE), KILLS, random.Random(7)

    def kill(name: str) -> None:
        nonlocal left
        if name == place and left:
            left -= 1
            if path.exists() and dice.random() < 0.5:  # the last line was torn
                path.write_bytes(path.read_bytes()[: -dice.randrange(1, 200)])
            raise Killed

    failpoints.install(kill)
    try:
        while left:
            record(dice.randrange(1, 40))
            services.seal_all()
            with pytest.raises(Killed):
                services.push_sink("file")
    finally:
        failpoints.install(None)
    services.push_sink("file")

    whole = []
    for line in path.read_text().splitlines():
        try:
            whole.append(json.loads(line)["metadata"]["sequence"])
        except ValueError:
            continue  # torn by a kill; it came again
    assert sorted(set(whole)) == list(range(Event.objects.count()))
    assert whole == sorted(whole)


def test_sink_away_for_an_hour_then_all_comes_in_order(
    record: Recorder, log_host: sink_hosts.LogHost, settings: Any
) -> None:
    settings.POLAR_SINK_FILE = ""
    start = clock.now()
    log_host.is_down = True
    for minute in range(0, 61, 10):
        with clock.frozen(start + timedelta(minutes=minute)):
            record(20)
            services.seal_all()
            assert services.push_sink("http") == 0
    with clock.frozen(start + timedelta(minutes=61)):
        assert sink_lag()[0] >= timedelta(hours=1)
        log_host.is_down = False
        assert services.push_sink("http") == 140
        assert acknowledged() == 139
        assert sink_lag() == (timedelta(), "")

    assert sequence(log_host.lines) == list(range(140))


# --- The signature ------------------------------------------------------------

EXAMPLE = Signer(
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1"
)
AT = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "url", "body", "more", "signature"),
    [
        (
            "GET",
            "/test.txt",
            b"",
            {"Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            b"Welcome to Amazon S3.",
            {
                "Date": "Fri, 24 May 2013 00:00:00 GMT",
                "x-amz-storage-class": "REDUCED_REDUNDANCY",
            },
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/?lifecycle",
            b"",
            {},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/?max-keys=2&prefix=J",
            b"",
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signature_is_that_of_the_vendors_examples(
    method: str, url: str, body: bytes, more: dict[str, str], signature: str
) -> None:
    """Source: the vendor's page on header-based authentication, its four examples."""
    found = EXAMPLE.headers(method, HOST + url, body=body, at=AT, more=more)

    assert found["authorization"].endswith(f"Signature={signature}")
