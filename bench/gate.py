"""What the gate costs: deciding with many rules, and audited calls a second.

A decision is everything before an effect may start: one transaction with every
stage, the call's row and, when refused, its event. The calls of the second
measurement are carried out and settled: decided, started, done, recorded.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from django.db import connection

from apps.audit.models import Event
from apps.common import ids
from apps.gateway import services as gateway
from apps.gateway.engine import pipeline
from apps.gateway.engine.ledger import key_of, new_row
from apps.gateway.models import Call, CallState, Grant
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    Result,
    Risk,
)

from . import cpu
from .measures import Row, percentile
from .stand import Stand

RULES = 500
ARGUMENTS = {"to": ["ann@example.org"], "text": "hello"}
SCOPE = {"allowed": {"mail": ["*"]}}


def measure(stand: Stand, count: int, threads: int) -> list[Row]:
    """Both figures of the gate."""
    _make_rules(stand)
    return [
        *_decisions(stand, count),
        *_calls(stand, count, 1),
        *_calls(stand, count * 2, threads),
        *_processes(stand, count * 2, 2, threads // 2, "outside"),
        *_processes(stand, count * 2, 2, threads // 2, "inside"),
    ]


def _make_rules(stand: Stand) -> None:
    """Grants that all have to be looked at: the last one is the one that fits."""
    Grant.objects.filter(granted_by="bench").delete()
    Grant.objects.bulk_create(
        Grant(
            kind=CallKind.TOOL,
            capabilities=[name],
            constraints={"targets": ["*@example.org"]},
            reason="measured",
            granted_by="bench",
            workspace=stand.workspace,
        )
        for name in [*(f"ext{n}/*" for n in range(RULES - 1)), "mail/*"]
    )


def _request(stand: Stand, *, inside: bool = False) -> CallRequest:
    """One allowed call, of an effect outside or one that is rows of the store."""
    run_id = ids.new_id()

    def perform(permit: Permit) -> Result:
        permit.spend(ARGUMENTS, waits=False)
        return Result({"ok": True})

    return CallRequest(
        kind=CallKind.TOOL,
        capability="mail/send",
        principal=stand.agent,
        workspace_id=stand.workspace.id,
        arguments=ARGUMENTS,
        perform=perform,
        effect_class=EffectClass.INTERNAL,
        is_inside=inside,
        risk=Risk("write", "external"),
        lineage=Lineage(run_id=run_id, root_id=run_id, agent="bench"),
        scope=SCOPE,
    )


def _decisions(stand: Stand, count: int) -> list[Row]:
    """Decide and commit, and do nothing."""
    took = []
    for _ in range(count + 20):
        request = _request(stand)
        begun = time.perf_counter()
        call = new_row(request)
        call.idempotency_key = key_of(request, call.args_digest)
        call, _earlier = pipeline._authorize(call, request)
        took.append((time.perf_counter() - begun) * 1000)
        if call.state != CallState.AUTHORIZED:
            raise SystemExit(f"a decision ended {call.state}")
    warm = took[20:]
    title = f"decision with {RULES} rules"
    return [
        (f"{title}, p50", statistics.median(warm), "ms"),
        (f"{title}, p95", percentile(warm, 0.95), "ms"),
        (f"{title}, p99", percentile(warm, 0.99), "ms"),
    ]


def _calls(stand: Stand, count: int, threads: int) -> list[Row]:
    """Carry calls out whole, and count that each left its row and its event."""
    calls, events = Call.objects.count(), Event.objects.count()

    def one(_: int) -> None:
        gateway.call(_request(stand))

    before, begun = cpu.now(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(count)))
    wall, used = time.perf_counter() - begun, cpu.now() - before
    made = Call.objects.count() - calls, Event.objects.count() - events
    if made[0] != count or made[1] < count:
        raise SystemExit(f"{count} calls left {made[0]} rows and {made[1]} events")
    return [
        (
            f"audited allowed calls, {RULES} rules, {threads} threads",
            count / wall,
            "/s",
        ),
        ("— CPU per call, Polar's", used.polar / count * 1000, "ms"),
        ("— CPU per call, the server's", used.server / count * 1000, "ms"),
        (f"— durable commits ({_durability()})", 1.0, ""),
    ]


def _processes(
    stand: Stand, count: int, processes: int, threads: int, where: str
) -> list[Row]:
    """The same calls from several processes, as many as there are cores."""
    command = [sys.executable, "-m", "bench.calls", str(count), str(threads), where]
    env = {**os.environ, "POLAR_BENCH_BACKEND": stand.backend}
    started = [
        subprocess.Popen(
            command,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(processes)
    ]
    for each in started:
        assert each.stdout is not None
        if each.stdout.readline() != "ready\n":
            raise SystemExit("a calling process did not start")
    calls, before = Call.objects.count(), cpu.now()
    said = [json.loads(each.communicate()[0]) for each in _told(started)]
    server = (cpu.now() - before).server
    made, wanted = Call.objects.count() - calls, count * processes
    if made != wanted:
        raise SystemExit(f"{wanted} calls left {made} rows")
    wall = max(one["ended"] for one in said) - min(one["began"] for one in said)
    title = f"audited allowed calls {where}, {processes} processes of {threads} threads"
    used = sum(one["cpu"] for one in said)
    return [
        (title, made / wall, "/s"),
        ("— CPU per call, Polar's", used / made * 1000, "ms"),
        ("— CPU per call, the server's", server / made * 1000, "ms"),
    ]


def _told(started: list["subprocess.Popen[str]"]) -> list["subprocess.Popen[str]"]:
    """Let all of them go at the same moment."""
    for each in started:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    return started


def _durability() -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SHOW fsync")
            return f"fsync {cursor.fetchone()[0]}"
        cursor.execute("PRAGMA synchronous")
        return f"synchronous {cursor.fetchone()[0]}"
