"""Checks of the audit log, the witness beside it and the sinks behind it."""

from datetime import timedelta
from pathlib import Path

from django.conf import settings

from apps.audit import ports as audit_ports
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import PolarError
from apps.reliability.engine.doctor.check import Found, check, fail, ok, unknown, warn
from apps.reliability.engine.doctor.store import file_of_store

SEAL_WITHIN = timedelta(seconds=60)
ACK_WITHIN = timedelta(minutes=5)
#: So many events may stand behind the newest signed checkpoint.
UNSIGNED = 1000


@check(
    "log-witness",
    "What happens is remembered outside the store",
    mend="Set POLAR_WITNESS_DIR to a folder that this user may write, on the host"
    " of the clock.",
)
def witness() -> Found:
    if not audit.can_seal():
        return warn("this host has no witness; another one must seal")
    try:
        audit.check_claim()
    except PolarError as error:
        return fail(error.detail)
    return ok(str(settings.POLAR_WITNESS_DIR))


@check(
    "log-witness-apart",
    "The witness is not lost with the disk of the store",
    mend="Put POLAR_WITNESS_DIR on another disk or machine.",
)
def witness_apart() -> Found:
    store, where = file_of_store(), Path(settings.POLAR_WITNESS_DIR)
    if store is None:
        return ok("the store is elsewhere")
    if not where.is_dir():
        return unknown("there is no witness yet")
    same = store.stat().st_dev == where.stat().st_dev
    return warn("both lie on one disk") if same else ok("on another disk")


@check(
    "log-sealed",
    "New events are numbered and told to the witness",
    mend="Start the clock on the host with the witness: ./polar clock",
)
def sealed() -> Found:
    waiting = Event.objects.all().unsealed()
    oldest = waiting.order_by("id").values_list("occurred_at", flat=True).first()
    if oldest is None:
        return ok(f"{audit_queries.head().size} sealed, none waits")
    age = clock.now() - oldest
    said = f"the oldest waits for {age.total_seconds():.0f} s"
    return fail(said) if age > SEAL_WITHIN else ok(said)


@check(
    "log-checkpoint",
    "The newest head is signed",
    mend="Run: ./polar audit checkpoint",
)
def checkpoint() -> Found:
    newest, size = audit_queries.latest_checkpoint(), audit_queries.head().size
    if newest is None:
        return warn(f"{size} events, no checkpoint yet")
    behind = size - newest.size
    said = f"{behind} events since"
    return fail(said) if behind > UNSIGNED else ok(said)


@check(
    "log-whole",
    "Every event, node, checkpoint and witness line agrees",
    mend="Follow docs/runbooks/a-swapped-store.md; change nothing by hand.",
    slow=True,
)
def whole() -> Found:
    verdict = audit.verify()
    return ok(f"{verdict.size} events") if verdict.ok else fail(verdict.problem)


@check(
    "log-sink",
    "Events are copied out of the store",
    mend="Set POLAR_SINK_FILE, or one of the other sinks of .env.example.",
)
def sink() -> Found:
    used = [name for name, sink in audit_ports.sinks().items() if sink.is_on()]
    return ok(", ".join(sorted(used))) if used else fail("no sink is set")


@check(
    "log-sink-lag",
    "Every sink has every event within five minutes, without a gap",
    mend="Mend the sink that is named; nothing is lost meanwhile: the events stay in"
    " the store and go out when it is back.",
)
def sink_lag() -> Found:
    used = {name for name, sink in audit_ports.sinks().items() if sink.is_on()}
    if not used:
        return fail("no sink is set")
    cursors = [row for row in audit_queries.sink_cursors() if row.name in used]
    troubled = [f"{row.name}: {row.problem}" for row in cursors if row.problem]
    waits, _ = audit_queries.sink_lag()
    said = f"the oldest event waits for {waits.total_seconds():.0f} s"
    if waits > ACK_WITHIN:
        return fail("; ".join([said, *troubled]))
    return warn("; ".join(troubled)) if troubled else ok(said)


@check(
    "log-sink-immutable",
    "Nobody, not even this install, can change what a sink has",
    mend="Use a bucket with object lock in COMPLIANCE mode (POLAR_SINK_S3_URL), or a"
    " log host of its own: docs/how-to/keep-the-log-elsewhere.md",
)
def sink_immutable() -> Found:
    said = []
    for name, each in sorted(audit_ports.sinks().items()):
        if not each.is_on():
            continue
        keeping = each.keeping()
        if keeping.is_immutable:
            return ok(f"{name}: {keeping.detail}")
        said.append(f"{name}: {keeping.detail}")
    return warn("; ".join(said)) if said else fail("no sink is set")
