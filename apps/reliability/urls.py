from django.urls import path

from . import views

app_name = "reliability"

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("search/", views.search, name="search"),
    path("tour/hide/", views.hide_tour, name="hide_tour"),
    path("manual/", views.manual, name="manual"),
    path("manual/<slug:slug>/", views.manual, name="manual_page"),
    path("parts/", views.parts, name="parts"),
    path("store/", views.store, name="store"),
    path("store/accept/", views.accept_rollback, name="accept_rollback"),
    path("store/<uuid:rollback_id>/resume/", views.resume_stale, name="resume_stale"),
    path("store/snapshot/", views.create_snapshot, name="create_snapshot"),
    path("store/rehearse/", views.rehearse_restore, name="rehearse_restore"),
    path("incidents/", views.incident_list, name="incidents"),
    path("incidents/open/", views.open_incident, name="open_incident"),
    path("incidents/panel/", views.panel, name="panel"),
    path("incidents/<uuid:incident_id>/", views.incident, name="incident"),
    path(
        "incidents/<uuid:incident_id>/change/",
        views.change_incident,
        name="change_incident",
    ),
    path(
        "incidents/<uuid:incident_id>/steps/<slug:step>/",
        views.run_step,
        name="run_step",
    ),
    path(
        "incidents/<uuid:incident_id>/evidence.json",
        views.evidence,
        {"form": "json"},
        name="evidence",
    ),
    path(
        "incidents/<uuid:incident_id>/evidence.md",
        views.evidence,
        {"form": "md"},
        name="evidence_md",
    ),
    path("alerts/", views.alert_list, name="alerts"),
    path("alerts/silence/", views.silence_alert, name="silence_alert"),
    path(
        "alerts/<uuid:alert_id>/acknowledge/",
        views.acknowledge_alert,
        name="acknowledge_alert",
    ),
    path("slo/", views.slo_page, name="slo"),
    path("drills/", views.drills, name="drills"),
    path("drills/start/<slug:slug>/", views.start_drill, name="start_drill"),
    path("drills/on-install/<slug:slug>/", views.live_drill, name="live_drill"),
    path("drills/<uuid:drill_id>/", views.drill, name="drill"),
    path("drills/<uuid:drill_id>/live/", views.drill_live, name="drill_live"),
    path("drills/<uuid:drill_id>/cancel/", views.cancel_drill, name="cancel_drill"),
    path(
        "drills/<uuid:drill_id>/evidence/", views.drill_evidence, name="drill_evidence"
    ),
    path("continuity/", views.continuity, name="continuity"),
    path("continuity/panel/", views.proof_panel, name="proof"),
    path("continuity/boxes/", views.continuity_boxes, name="continuity_boxes"),
    path("continuity/doctor/<slug:area>/", views.doctor, name="doctor"),
    path("continuity/breach/", views.make_breach, name="make_breach"),
    path("annunciator/", views.annunciator, name="annunciator"),
    path("settings/", views.config, name="config"),
    path("settings/export/", views.export_config, name="export_config"),
    path("settings/import/", views.import_config, name="import_config"),
]
