from django.urls import path

from apps.runs import views

app_name = "runs"

urlpatterns = [
    path("runs/", views.run_list, name="list"),
    path("runs/dead-letters/", views.dead_letters, name="dead_letters"),
    path("runs/panel/", views.panel, name="panel"),
    path("runs/find/", views.find, name="find"),
    path("runs/<uuid:run_id>/", views.detail, name="detail"),
    path("runs/<uuid:run_id>/cancel/", views.cancel, name="cancel"),
    path("runs/<uuid:run_id>/act/", views.act, name="act"),
]
