"""The pages of reliability, by what they show."""

from apps.reliability.views.continuity import (
    continuity,
    continuity_boxes,
    doctor,
    make_breach,
)
from apps.reliability.views.front import (
    annunciator,
    healthz,
    hide_tour,
    home,
    parts,
    readyz,
    search,
)
from apps.reliability.views.incidents import (
    acknowledge_alert,
    alert_list,
    change_incident,
    evidence,
    incident,
    incident_list,
    open_incident,
    panel,
    run_step,
    silence_alert,
    slo_page,
)
from apps.reliability.views.manual import manual
from apps.reliability.views.proving import proof_panel
from apps.reliability.views.settings import (
    config,
    export_config,
    import_config,
)
from apps.reliability.views.shelf import (
    cancel_drill,
    drill,
    drill_evidence,
    drill_live,
    drills,
    live_drill,
    start_drill,
)
from apps.reliability.views.witness import (
    accept_rollback,
    create_snapshot,
    rehearse_restore,
    resume_stale,
    store,
)

__all__ = [
    "accept_rollback",
    "acknowledge_alert",
    "alert_list",
    "annunciator",
    "cancel_drill",
    "change_incident",
    "config",
    "continuity",
    "continuity_boxes",
    "create_snapshot",
    "doctor",
    "drill",
    "drill_evidence",
    "drill_live",
    "drills",
    "live_drill",
    "evidence",
    "export_config",
    "healthz",
    "hide_tour",
    "home",
    "import_config",
    "incident",
    "incident_list",
    "make_breach",
    "manual",
    "open_incident",
    "panel",
    "parts",
    "proof_panel",
    "readyz",
    "rehearse_restore",
    "resume_stale",
    "run_step",
    "search",
    "silence_alert",
    "slo_page",
    "start_drill",
    "store",
]
