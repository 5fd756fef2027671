from django.urls import path

from apps.runs import views

app_name = "runs"

urlpatterns = [
    path("metrics", views.metrics, name="metrics"),
    path("runs/", views.run_list, name="list"),
    path("runs/dead-letters/", views.dead_letters, name="dead_letters"),
    path("runs/panel/", views.panel, name="panel"),
    path("runs/<uuid:run_id>/", views.detail, name="detail"),
    path("runs/<uuid:run_id>/cancel/", views.cancel, name="cancel"),
    path("runs/<uuid:run_id>/replay/", views.replay, name="replay"),
    path("runs/<uuid:run_id>/act/", views.act, name="act"),
    path(
        "runs/<uuid:run_id>/effects/<uuid:call_id>/",
        views.settle_effect,
        name="settle_effect",
    ),
    path("runs/dead-letters/act/", views.act_on_matching, name="act_on_matching"),
    path("schedules/", views.schedules, name="schedules"),
    path("schedules/panel/", views.schedules_panel, name="schedules_panel"),
    path("schedules/new/", views.edit_schedule, name="new_schedule"),
    path("schedules/<uuid:schedule_id>/", views.schedule, name="schedule"),
    path(
        "schedules/<uuid:schedule_id>/edit/", views.edit_schedule, name="edit_schedule"
    ),
    path(
        "schedules/<uuid:schedule_id>/steer/",
        views.steer_schedule,
        name="steer_schedule",
    ),
    path("schedules/proposals/<uuid:proposal_id>/", views.proposal, name="proposal"),
]
