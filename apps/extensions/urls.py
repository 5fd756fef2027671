from django.urls import path

from apps.extensions import views

app_name = "extensions"

urlpatterns = [
    path("extensions/", views.extension_list, name="list"),
    path("extensions/install/", views.install_form, name="install"),
    path("extensions/install/do/", views.install, name="install_do"),
    path(
        "extensions/certificates/<uuid:certificate_id>/",
        views.certificate,
        name="certificate",
    ),
    path(
        "extensions/certificates/<uuid:certificate_id>/download/",
        views.download,
        name="download",
    ),
    path("extensions/oauth/callback/", views.connected, name="connected"),
    path("extensions/<slug:ext_id>/connect/", views.connect, name="connect"),
    path("extensions/<slug:ext_id>/disconnect/", views.disconnect, name="disconnect"),
    path("extensions/<slug:ext_id>/", views.detail, name="detail"),
    path("extensions/<slug:ext_id>/sync/", views.sync, name="sync"),
    path("extensions/<slug:ext_id>/review/", views.review, name="review"),
    path("extensions/<slug:ext_id>/lifecycle/", views.lifecycle, name="lifecycle"),
]
