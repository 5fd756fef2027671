from django.urls import path

from apps.gateway import views

app_name = "gateway"

urlpatterns = [
    path("halt/", views.halts, name="halts"),
    path("halt/set/", views.set_halt, name="set_halt"),
    path("halt/<uuid:halt_id>/resume/", views.resume, name="resume"),
    path("approvals/", views.approvals, name="approvals"),
    path("approvals/panel/", views.panel, name="panel"),
    path("approvals/<uuid:approval_id>/decide/", views.decide, name="decide"),
]
