from django.urls import path

from . import views

app_name = "reliability"

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("search/", views.search, name="search"),
    path("store/", views.store, name="store"),
    path("store/accept/", views.accept_rollback, name="accept_rollback"),
    path("store/<uuid:rollback_id>/resume/", views.resume_stale, name="resume_stale"),
    path("store/snapshot/", views.create_snapshot, name="create_snapshot"),
    path("annunciator/", views.annunciator, name="annunciator"),
    path("settings/", views.config, name="config"),
    path("settings/export/", views.export_config, name="export_config"),
    path("settings/import/", views.import_config, name="import_config"),
]
