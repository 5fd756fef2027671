"""The verbs of reliability."""

from apps.reliability.services.alerts import SYNTHETIC_KIND as SYNTHETIC_KIND
from apps.reliability.services.alerts import acknowledge_alert as acknowledge_alert
from apps.reliability.services.alerts import breach as breach
from apps.reliability.services.alerts import carry_breach as carry_breach
from apps.reliability.services.alerts import (
    install_weekly_breach as install_weekly_breach,
)
from apps.reliability.services.alerts import lift_silence as lift_silence
from apps.reliability.services.alerts import silence as silence
from apps.reliability.services.alerts import watch as watch
from apps.reliability.services.bundles import as_markdown as as_markdown
from apps.reliability.services.bundles import evidence as evidence
from apps.reliability.services.chatting import INCIDENT_COMMAND as INCIDENT_COMMAND
from apps.reliability.services.configuration import Change as Change
from apps.reliability.services.configuration import Entry as Entry
from apps.reliability.services.configuration import as_text as as_text
from apps.reliability.services.configuration import diff_config as diff_config
from apps.reliability.services.configuration import export_config as export_config
from apps.reliability.services.configuration import (
    extensions_to_review as extensions_to_review,
)
from apps.reliability.services.configuration import get_config as get_config
from apps.reliability.services.configuration import import_config as import_config
from apps.reliability.services.configuration import list_configs as list_configs
from apps.reliability.services.configuration import parse_document as parse_document
from apps.reliability.services.configuration import (
    secrets_to_enter as secrets_to_enter,
)
from apps.reliability.services.configuration import upsert_config as upsert_config
from apps.reliability.services.drills import DRILL_KIND as DRILL_KIND
from apps.reliability.services.drills import DRILLS_DUE_KIND as DRILLS_DUE_KIND
from apps.reliability.services.drills import MOST as MOST
from apps.reliability.services.drills import Cap as Cap
from apps.reliability.services.drills import Shelved as Shelved
from apps.reliability.services.drills import cancel_drill as cancel_drill
from apps.reliability.services.drills import carry_due_drill as carry_due_drill
from apps.reliability.services.drills import close_orphans as close_orphans
from apps.reliability.services.drills import definition_of as definition_of
from apps.reliability.services.drills import drill_named as drill_named
from apps.reliability.services.drills import drill_schedule as drill_schedule
from apps.reliability.services.drills import evidence_path as evidence_path
from apps.reliability.services.drills import get_drill as get_drill
from apps.reliability.services.drills import (
    install_drill_schedule as install_drill_schedule,
)
from apps.reliability.services.drills import newest_drills as newest_drills
from apps.reliability.services.drills import shelf_of_drills as shelf_of_drills
from apps.reliability.services.drills import start_drill as start_drill
from apps.reliability.services.drills import start_live_drill as start_live_drill
from apps.reliability.services.drills import take_back_faults as take_back_faults
from apps.reliability.services.drills import verify_evidence as verify_evidence
from apps.reliability.services.incidents import ROLES as ROLES
from apps.reliability.services.incidents import NewIncident as NewIncident
from apps.reliability.services.incidents import assign_incident as assign_incident
from apps.reliability.services.incidents import classify_incident as classify_incident
from apps.reliability.services.incidents import note_on_incident as note_on_incident
from apps.reliability.services.incidents import open_incident as open_incident
from apps.reliability.services.incidents import review_incident as review_incident
from apps.reliability.services.incidents import (
    transition_incident as transition_incident,
)
from apps.reliability.services.notices import send_due as send_due
from apps.reliability.services.playing import STEP_SECONDS as STEP_SECONDS
from apps.reliability.services.playing import carry_drill as carry_drill
from apps.reliability.services.recoveries import COPY_SECONDS as COPY_SECONDS
from apps.reliability.services.recoveries import REHEARSAL_KIND as REHEARSAL_KIND
from apps.reliability.services.recoveries import carry_rehearsal as carry_rehearsal
from apps.reliability.services.recoveries import figures as figures
from apps.reliability.services.recoveries import rehearse_restore as rehearse_restore
from apps.reliability.services.recoveries import (
    start_restore_rehearsal as start_restore_rehearsal,
)
from apps.reliability.services.snapshots import SNAPSHOT_KIND as SNAPSHOT_KIND
from apps.reliability.services.snapshots import Snapshot as Snapshot
from apps.reliability.services.snapshots import create_snapshot as create_snapshot
from apps.reliability.services.snapshots import install_schedule as install_schedule
from apps.reliability.services.snapshots import keep_snapshots as keep_snapshots
from apps.reliability.services.snapshots import newest_snapshot as newest_snapshot
from apps.reliability.services.snapshots import prune_snapshots as prune_snapshots
from apps.reliability.services.snapshots import restore as restore
from apps.reliability.services.snapshots import restore_beside as restore_beside
from apps.reliability.services.snapshots import snapshots as snapshots
from apps.reliability.services.snapshots import take_scheduled as take_scheduled
from apps.reliability.services.snapshots import verify_snapshot as verify_snapshot
from apps.reliability.services.steps import run_step as run_step
from apps.reliability.services.store import accept_rollback as accept_rollback
from apps.reliability.services.store import look_after_alarm as look_after_alarm
from apps.reliability.services.store import resume_stale as resume_stale
from apps.reliability.services.webhooks import place_of_webhook as place_of_webhook
from apps.reliability.services.webhooks import remove_webhook as remove_webhook
from apps.reliability.services.webhooks import save_webhook as save_webhook
