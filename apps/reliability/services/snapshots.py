"""Snapshots and restores, each audited; a restore is announced before it begins.

The announcement is signed and stands beside the witness: a store that went back
without one is an alarm, with one it is a recovery that begins a new epoch.
"""

from pathlib import Path

from django.db import connection, transaction

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.common.actor import Actor
from apps.common.errors import Invalid
from apps.reliability.engine import snapshotting
from apps.reliability.engine.snapshotting import Snapshot as Snapshot
from apps.reliability.errors import SnapshotBroken
from apps.reliability.models import Rollback
from apps.reliability.services import recoveries, store
from apps.runs import services as runs
from apps.runs.models import Schedule
from apps.runs.ports import Finish, RunContext

SNAPSHOT_KIND = "reliability.snapshot"
SCHEDULE = "snapshots"
#: A little less than a day, so that a slot does not miss it by its jitter.
DAY_SECONDS = 23 * 3600


def create_snapshot(*, by: Principal) -> Snapshot:
    """Copy the whole store, with a signed manifest, while everything runs.

    Raises: RoleRequired; StoreInDoubt under an alarm; SnapshotFailed.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    audit.check_here()
    made = snapshotting.create()
    _record(by.actor, "snapshot.created", made)
    return made


def verify_snapshot(*, by: Principal, name: str) -> Snapshot:
    """Open a copy of a snapshot and recompute its log.

    Raises: RoleRequired, NotFound, SnapshotBroken, SnapshotFailed.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    found = snapshotting.verify(name)
    _record(by.actor, "snapshot.verified", found)
    return found


def prune_snapshots(*, by: Principal, keep: int = snapshotting.KEEP) -> list[str]:
    """Remove all but the newest. Again: removes nothing more."""
    check_role(by, Role.OPERATOR, access.default_workspace())
    gone = snapshotting.prune(keep)
    if gone:
        with transaction.atomic():
            audit.record(
                type="snapshot.pruned", actor=by.actor, data={"names": gone[:100]}
            )
    return gone


def snapshots() -> list[Snapshot]:
    """List them, newest first."""
    return snapshotting.every()


def newest_snapshot() -> Snapshot | None:
    """Return the newest that can be read, None without any."""
    return snapshotting.newest()


def restore_beside(*, by: Principal, source: str, target: Path) -> Path:
    """Write a proved copy to a new file; the store stays as it is."""
    check_role(by, Role.ADMIN, access.default_workspace())
    snapshotting.check_is_new(target)
    snapshotting.put_beside(snapshotting.copy_of(source), target)
    return target


def restore(*, by: Actor, source: str, reason: str) -> tuple[Rollback | None, str]:
    """Let a snapshot, or a store's own file, be the store.

    Called on the host, where whoever runs it has the host. A store that holds all
    the witness knows simply comes back; an older one begins a new epoch, with its
    runs classified as after any rollback.
    Shape: the rollback, if it was one; where the former store is kept.
    Raises: Invalid, NotFound, SnapshotBroken, SnapshotFailed.
    """
    if not reason.strip():
        raise Invalid("Say why it is restored.")
    watch = recoveries.Stopwatch()
    copy = snapshotting.copy_of(source)
    audit.announce_restore(by=by, source=source, reason=reason)
    kept = snapshotting.put_into_place(copy)
    connection.close()
    snapshotting.bring_up_to_date()
    problem = audit.what_contradicts()
    if not problem:
        audit.end_restore(how=f"restored by {by.label}: {reason}")
        rollback = None
    else:
        rollback = store.recover(by=by, problem=problem, reason=reason)
    with transaction.atomic():
        lost = 0 if rollback is None else rollback.events_lost
        noted = recoveries.note_restore(
            watch, by=by.label, source=source, events_lost=lost
        )
        audit.record(
            type="store.restored",
            actor=by,
            reason=reason,
            data=recoveries.figures(noted) | {"went_back": rollback is not None},
        )
    audit.seal_all()
    return rollback, "" if kept is None else str(kept)


def keep_snapshots() -> Snapshot:
    """What the shipped schedule does: take one, drop the oldest, prove daily that
    the newest can be restored.

    Raises: what taking it raises; SnapshotBroken when it does not prove itself.
    """
    system = access_services.system_principal()
    made = create_snapshot(by=system)
    prune_snapshots(by=system)
    proved = [each.verified_at for each in snapshots() if each.verified_at]
    newest = max(proved, default=None)
    if newest is None or (made.taken_at - newest).total_seconds() >= DAY_SECONDS:
        proof = recoveries.rehearse_restore(by=system, name=made.name)
        if not proof.ok:
            raise SnapshotBroken(proof.problem)
        return snapshotting.read(made.name)
    return made


def take_scheduled(context: RunContext) -> Finish:
    """Carry the shipped schedule's run. Again: one snapshot more, pruned in turn."""
    made = keep_snapshots()
    return Finish({"snapshot": made.name, "events": made.events})


def install_schedule(*, workspace: Workspace) -> None:
    """Plan a snapshot every six hours. Again: what is planned stays as it is."""
    if Schedule.objects.filter(workspace=workspace, slug=SCHEDULE).exists():
        return
    runs.create_schedule(
        by=access_services.system_principal(),
        workspace=workspace,
        slug=SCHEDULE,
        when=("cron", "0 */6 * * *"),
        run_kind=SNAPSHOT_KIND,
        title="Snapshot of the store",
    )


def _record(by: Actor, event: str, snapshot: Snapshot) -> None:
    with transaction.atomic():
        audit.record(
            type=event,
            actor=by,
            subject=("snapshot", snapshot.name),
            data={
                "events": snapshot.events,
                "root": snapshot.root,
                "epoch": snapshot.epoch,
                "bytes": snapshot.bytes,
                "sha256": snapshot.sha256,
            },
        )
