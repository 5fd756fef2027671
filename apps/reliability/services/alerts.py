"""Raise, acknowledge, silence and clear alerts.

An alert, its event, its incident and the news of it are one commit. Of two clocks
that see the same, the database lets one raise it.
"""

from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.common import clock, ids
from apps.common.actor import SYSTEM
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.reliability.engine import alerts as detecting
from apps.reliability.engine import slo
from apps.reliability.engine.findings import Detector, Finding
from apps.reliability.models import (
    ALERT,
    STANDING,
    Alert,
    AlertCode,
    AlertOrigin,
    AlertState,
    Level,
    Silence,
)
from apps.reliability.services import incidents, notices
from apps.runs import services as runs
from apps.runs.models import Schedule
from apps.runs.ports import Finish, RunContext

#: Seen no more for this long, it is over: no flapping at the threshold.
CLEAR_AFTER = timedelta(seconds=60)
#: How often a standing alert's row is refreshed.
REFRESH_AFTER = timedelta(seconds=20)
LONGEST_SILENCE = timedelta(days=30)
SYNTHETIC_KIND = "reliability.synthetic_breach"
BREACH_SLUG = "weekly-breach"


def watch(detector: Detector) -> int:
    """Look once with a detector; raise what it finds, clear what is over.

    Returns how many stand.   Again: the same finding raises nothing new.
    """
    found = detecting.now_found(detector)
    for finding in found:
        note(finding)
    codes = tuple(str(code) for code in detector.codes)
    clear_over(codes)
    if detector.of_drills is not None:
        for finding in detecting.found_of_drills(detector):
            note(finding, origin=AlertOrigin.DRILL)
        clear_over(codes, origin=AlertOrigin.DRILL)
    return len(found)


def note(finding: Finding, *, origin: str = AlertOrigin.REAL) -> Alert:
    """Raise an alert, or refresh and, where it got worse, escalate the standing one."""
    place = {"code": finding.code, "key": finding.key[:120], "origin": origin}
    standing = Alert.objects.standing().filter(**place).first()
    if standing is None:
        try:
            with transaction.atomic():
                return _raise(finding, place)
        except IntegrityError:
            standing = Alert.objects.standing().get(**place)
    return _refresh(standing, finding)


def _raise(finding: Finding, place: dict[str, str]) -> Alert:
    alert = Alert.objects.create(
        **place,
        level=finding.level,
        summary=finding.summary[:300],
        facts=finding.facts,
        trace_id=finding.trace_id or ids.current_trace_id(),
        seen_at=clock.now(),
    )
    _record("alert.raised", alert, reason=alert.summary)
    incidents.join(alert)
    if not _is_silenced(alert):
        notices.tell(alert, "raised")
    return alert


def _refresh(alert: Alert, finding: Finding) -> Alert:
    now = clock.now()
    worse = finding.level == Level.CRITICAL and alert.level == Level.WARNING
    if not worse and now - alert.seen_at < REFRESH_AFTER:
        return alert
    new = {
        "seen_at": now,
        "summary": finding.summary[:300],
        "facts": finding.facts,
        "level": Level.CRITICAL if worse else alert.level,
    }
    with transaction.atomic():
        mine = Alert.objects.filter(id=alert.id, level=alert.level, state__in=STANDING)
        changed = mine.update(**new)
        alert.refresh_from_db()
        if worse and changed:
            _record("alert.escalated", alert, reason=alert.summary)
            incidents.join(alert)
            if not _is_silenced(alert):
                notices.tell(alert, "escalated")
    return alert


def clear_over(codes: tuple[str, ...], *, origin: str = AlertOrigin.REAL) -> int:
    """Clear the standing alerts of these codes that were not seen for a minute."""
    over = Alert.objects.standing().filter(
        code__in=codes, origin=origin, seen_at__lt=clock.now() - CLEAR_AFTER
    )
    return sum(clear(alert) for alert in over.order_by("id"))


@transaction.atomic
def clear(alert: Alert) -> bool:
    """End an alert. Again: False."""
    mine = Alert.objects.filter(id=alert.id, state__in=STANDING, seen_at=alert.seen_at)
    if not mine.update(state=AlertState.CLEARED, cleared_at=clock.now()):
        return False
    _record("alert.cleared", alert, reason=alert.summary)
    if not _is_silenced(alert):
        notices.tell(alert, "cleared")
    return True


@transaction.atomic
def acknowledge_alert(*, by: Principal, alert_id: UUID, reason: str = "") -> Alert:
    """Say that somebody looks at it. It goes on standing until it is over.

    Raises: RoleRequired, NotFound, InvalidTransition for a cleared one, Conflict.
    Again: the first one who said so stays.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    alert = Alert.objects.filter(id=alert_id).first()
    if alert is None:
        raise NotFound("There is no such alert.")
    if alert.state == AlertState.ACKNOWLEDGED:
        return alert
    ALERT.check(alert.state, AlertState.ACKNOWLEDGED)
    mine = Alert.objects.filter(id=alert_id, state=AlertState.FIRING)
    changed = mine.update(
        state=AlertState.ACKNOWLEDGED,
        acknowledged_at=clock.now(),
        acknowledged_by=by.label,
    )
    if not changed:
        raise Conflict("It changed meanwhile: look again.")
    alert.refresh_from_db()
    _record("alert.acknowledged", alert, by=by, reason=reason)
    return alert


@transaction.atomic
def silence(
    *, by: Principal, code: str, reason: str, hours: float, key: str = ""
) -> Silence:
    """Keep the news of a code back for a while. Alerts and incidents still come.

    Raises: RoleRequired; Invalid without a reason, for an unknown code, or for
    more than 30 days.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    problems = []
    if code not in AlertCode.values:
        problems.append(FieldProblem("code", "unknown", "one of the alert codes"))
    if not reason.strip():
        problems.append(FieldProblem("reason", "empty", "why it may be quiet"))
    if not 0 < hours <= LONGEST_SILENCE.total_seconds() / 3600:
        problems.append(FieldProblem("hours", "out of range", "more than 0, up to 720"))
    if problems:
        raise Invalid("This cannot be silenced so.", fields=tuple(problems))
    row = Silence.objects.create(
        code=code,
        key=key[:120],
        reason=reason.strip()[:300],
        set_by=by.label,
        until=clock.now() + timedelta(hours=hours),
    )
    audit.record(
        type="alert.silenced",
        actor=by.actor,
        subject=("silence", str(row.id)),
        reason=row.reason,
        data={"code": code, "key": row.key, "until": row.until.isoformat()},
    )
    return row


@transaction.atomic
def lift_silence(*, by: Principal, silence_id: UUID) -> Silence:
    """Let the news through again. Again: stays lifted."""
    check_role(by, Role.OPERATOR, access.default_workspace())
    row = Silence.objects.filter(id=silence_id).first()
    if row is None:
        raise NotFound("There is no such silence.")
    now = clock.now()
    if Silence.objects.filter(id=row.id, lifted_at__isnull=True).update(lifted_at=now):
        audit.record(
            type="alert.silence_lifted",
            actor=by.actor,
            subject=("silence", str(row.id)),
            data={"code": row.code, "key": row.key},
        )
    row.refresh_from_db()
    return row


def breach(*, by: Principal) -> Alert:
    """Send a made-up breach down the whole way: judged, raised, told, cleared.

    Its calls are numbers, never rows; its origin is `synthetic`, so nothing counts
    it. What is still on its way is sent by the clock, as with every alert.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    finding = detecting.judge_rate(AlertCode.USAGE_FALLBACK, slo.Tally(20, 18))
    if finding is None:
        raise Conflict("The rule did not fire on a made-up breach.")
    alert = note(finding, origin=AlertOrigin.SYNTHETIC)
    clear(alert)
    alert.refresh_from_db()
    return alert


def carry_breach(context: RunContext) -> Finish:
    """Carry the weekly schedule's run."""
    alert = breach(by=access_services.system_principal())
    return Finish({"alert": str(alert.id)})


def install_weekly_breach(*, workspace: Workspace) -> None:
    """Plan the made-up breach. Again: what is planned stays as it is."""
    if Schedule.objects.filter(workspace=workspace, slug=BREACH_SLUG).exists():
        return
    runs.create_schedule(
        by=access_services.system_principal(),
        workspace=workspace,
        slug=BREACH_SLUG,
        when=("cron", "0 6 * * 1"),
        run_kind=SYNTHETIC_KIND,
        title="Made-up breach, to prove the way of alerts",
    )


def _is_silenced(alert: Alert) -> bool:
    now = clock.now()
    open_ones = Silence.objects.filter(
        code=alert.code, lifted_at__isnull=True, until__gt=now
    )
    return any(row.covers(alert.code, alert.key, now) for row in open_ones)


def _record(
    event: str, alert: Alert, *, by: Principal | None = None, reason: str = ""
) -> None:
    audit.record(
        type=event,
        actor=by.actor if by else SYSTEM,
        subject=("alert", str(alert.id)),
        trace_id=alert.trace_id,
        reason=reason[:300],
        data={
            "code": str(alert.code),
            "key": alert.key,
            "level": str(alert.level),
            "origin": str(alert.origin),
        },
    )
