"""The steps of the checklists as actions. Each says whether it found things well.

Nothing here holds a transaction while it asks a provider or copies a store.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Avg, Count, Max, Q

from apps.access.models import Principal
from apps.agents.models import AgentProfile
from apps.audit import services as audit
from apps.boards import services as boards
from apps.channels.models import Account, AccountState
from apps.common import clock
from apps.common.errors import NotFound
from apps.gateway import services as gateway
from apps.providers import queries as providers
from apps.providers import services as providers_services
from apps.providers.models import UsageRow
from apps.reliability import queries
from apps.reliability.engine import snapshotting
from apps.reliability.models import Incident
from apps.reliability.services import notices, snapshots
from apps.runs.models import Run, State

HOUR = timedelta(hours=1)
MOST = 20
#: What a step found: whether it is well, one sentence, and the facts.
Found = tuple[bool, str, dict[str, Any]]


def halt_everything(by: Principal, incident: Incident) -> Found:
    row = gateway.halt(by=by, scope="all", reason=f"{incident.name} {incident.title}")
    return True, f"everything is stopped by {row.set_by}", {"halt": str(row.id)}


def verify_audit(by: Principal, incident: Incident) -> Found:
    audit.seal_all()
    verdict = audit.verify()
    facts = {"size": verdict.size, "root": verdict.root, "problem": verdict.problem}
    if not verdict.ok:
        return False, f"the log is not whole: {verdict.problem}", facts
    return True, f"{verdict.size} events, the log is whole", facts


def verify_snapshot(by: Principal, incident: Incident) -> Found:
    newest = next(iter(snapshotting.every()), None)
    if newest is None:
        return False, "there is no snapshot to go back to", {}
    proved = snapshots.verify_snapshot(by=by, name=newest.name)
    facts = {"name": proved.name, "events": proved.events}
    return True, f"{proved.name} opens and its {proved.events} events are whole", facts


def restore_snapshot(by: Principal, incident: Incident) -> Found:
    proved = [each for each in snapshotting.every() if each.verified_at]
    if not proved:
        raise NotFound("No snapshot is proved: prove the newest first.")
    name = proved[0].name
    rollback, kept = snapshots.restore(
        by=by.actor, source=name, reason=f"{incident.name} {incident.title}"
    )
    lost = rollback.events_lost if rollback else 0
    words = f"restored {name}; {lost} events given up; the former store is kept"
    return True, words, {"name": name, "events_lost": lost, "kept": kept}


def check_workers(by: Principal, incident: Incident) -> Found:
    checks = {each.name: each for each in queries.readiness()}
    runs = Run.objects.filter(created_at__gte=clock.now() - timedelta(days=1))
    counts = runs.aggregate(
        queued=Count("id", filter=Q(state=State.QUEUED)),
        running=Count("id", filter=Q(state=State.RUNNING)),
        given_up=Count(
            "id", filter=Q(state=State.DEAD_LETTER, kind__startswith="channels.")
        ),
    )
    paused = Account.objects.exclude(state=AccountState.ACTIVE).count()
    workers = checks["workers"]
    words = (
        f"workers: {workers.detail}; {counts['queued']} queued, {counts['running']}"
        f" running; {paused} accounts paused,"
        f" {counts['given_up']} channel runs given up"
    )
    ok = workers.is_ok and not counts["given_up"]
    return ok, words, {**counts, "accounts_paused": paused, "workers": workers.detail}


def test_providers(by: Principal, incident: Incident) -> Found:
    enabled = list(providers.providers().filter(enabled=True)[:MOST])
    if not enabled:
        return False, "no provider is switched on", {}
    reports = [
        providers_services.test_provider(by=by, provider=each) for each in enabled
    ]
    facts = {
        each.provider: {
            "ok": each.ok,
            "ms": each.duration_ms,
            "error": each.error_class,
            "detail": each.detail[:200],
        }
        for each in reports
    }
    failed = [each.provider for each in reports if not each.ok]
    if failed:
        return (
            False,
            f"{len(failed)} of {len(reports)} fail: {', '.join(failed)}",
            facts,
        )
    return True, f"all {len(reports)} providers answer", facts


def check_config(by: Principal, incident: Incident) -> Found:
    wrong = [
        f"{each.name}: {each.detail}"
        for each in queries.readiness()
        if not each.is_ok and each.name not in ("workers", "halts")
    ]
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        wrong.append("migrations are not applied")
    if not AgentProfile.objects.exists():
        wrong.append("there is no agent")
    wrong += [
        f"the {lane.lane} lane has no route"
        for lane in providers.lanes_health()
        if lane.state == "unstaffed"
    ]
    if wrong:
        return False, "; ".join(wrong)[:400], {"problems": wrong[:MOST]}
    return True, "store, vault, routes, agents and migrations are as they should be", {}


def review_usage(by: Principal, incident: Incident) -> Found:
    rows = UsageRow.objects.filter(origin="real", created_at__gte=clock.now() - HOUR)
    groups = list(
        rows.values("served_provider", "requested_lane")
        .annotate(
            calls=Count("id"),
            failed=Count("id", filter=Q(ok=False)),
            fallback=Count("id", filter=Q(fallback_used=True)),
        )
        .order_by("-failed", "-calls")[:MOST]
    )
    calls, failed = (sum(row[name] for row in groups) for name in ("calls", "failed"))
    words = f"{calls} calls in the last hour, {failed} failed"
    if failed:
        worst = groups[0]
        named = worst["served_provider"] or "nobody answered"
        words += f"; most on the {worst['requested_lane']} lane ({named})"
    return not failed, words, {"groups": groups}


def check_lanes(by: Principal, incident: Incident) -> Found:
    lanes = providers.lanes_health()
    facts = {
        str(lane.lane): {
            "state": lane.state,
            "routes": [
                {
                    "route": str(each.route.model),
                    "state": each.state,
                    "why": each.detail or each.last_error[:200],
                }
                for each in lane.routes
            ],
        }
        for lane in lanes
    }
    words = ", ".join(f"{lane.lane} {lane.state}" for lane in lanes)
    return all(lane.state in ("ready", "unstaffed") for lane in lanes), words, facts


def check_timeouts(by: Principal, incident: Incident) -> Found:
    since = clock.now() - timedelta(days=1)
    rows = UsageRow.objects.filter(origin="real", created_at__gte=since)
    facts: dict[str, Any] = {}
    tight = []
    for row in (
        rows.values("served_lane")
        .exclude(served_lane="")
        .annotate(
            average=Avg("duration_ms"),
            longest=Max("duration_ms"),
            timed_out=Count("id", filter=Q(error_class__startswith="timeout")),
        )
        .order_by("served_lane")
    ):
        facts[row["served_lane"]] = {
            "average_ms": int(row["average"]),
            "longest_ms": row["longest"],
            "timed_out": row["timed_out"],
        }
    lost = rows.filter(ok=False, error_class__startswith="timeout").count()
    for route in providers.plan_routes():
        limit = int(route.wall_seconds * 1000)
        seen = facts.setdefault(route.lane, {})
        seen.setdefault("limits_ms", []).append({str(route.model): limit})
        if seen.get("longest_ms", 0) > limit * 0.8:
            tight.append(f"{route.model} ({route.lane})")
    words = f"{lost} calls timed out in a day"
    if tight:
        words += f"; within a fifth of the limit: {', '.join(tight[:5])}"
    return not lost and not tight, words, facts


def make_task(by: Principal, incident: Incident) -> Found:
    board = boards.ensure_board(
        by=by,
        workspace=incident.workspace,
        slug=notices.BOARD_SLUG,
        title=notices.BOARD_TITLE,
    )
    draft = boards.TaskDraft(
        title=f"{incident.name} {incident.title}"[:200],
        body=f"{incident.severity}: {incident.because}",
        priority=0 if incident.severity in ("S1", "S2") else 2,
        incident_id=incident.id,
    )
    key = f"incident:{incident.id}"
    task = boards.upsert_task(by=by, board=board, draft=draft, request_key=key)
    return (
        True,
        f"on the board {board.title}: {task.title}"[:300],
        {"task": str(task.id)},
    )


ACTIONS: dict[str, Callable[[Principal, Incident], Found]] = {
    "halt_everything": halt_everything,
    "verify_audit": verify_audit,
    "verify_snapshot": verify_snapshot,
    "restore_snapshot": restore_snapshot,
    "check_workers": check_workers,
    "test_providers": test_providers,
    "check_config": check_config,
    "review_usage": review_usage,
    "check_lanes": check_lanes,
    "check_timeouts": check_timeouts,
    "make_task": make_task,
}
