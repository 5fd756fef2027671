"""The verbs of reliability."""

from apps.reliability.services.snapshots import SNAPSHOT_KIND as SNAPSHOT_KIND
from apps.reliability.services.snapshots import Snapshot as Snapshot
from apps.reliability.services.snapshots import create_snapshot as create_snapshot
from apps.reliability.services.snapshots import install_schedule as install_schedule
from apps.reliability.services.snapshots import keep_snapshots as keep_snapshots
from apps.reliability.services.snapshots import prune_snapshots as prune_snapshots
from apps.reliability.services.snapshots import restore as restore
from apps.reliability.services.snapshots import restore_beside as restore_beside
from apps.reliability.services.snapshots import snapshots as snapshots
from apps.reliability.services.snapshots import take_scheduled as take_scheduled
from apps.reliability.services.snapshots import verify_snapshot as verify_snapshot
from apps.reliability.services.store import accept_rollback as accept_rollback
from apps.reliability.services.store import look_after_alarm as look_after_alarm
from apps.reliability.services.store import resume_stale as resume_stale
