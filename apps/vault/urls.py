from django.urls import path

from apps.vault import views

app_name = "vault"

urlpatterns = [
    path("vault/", views.status, name="status"),
    path("vault/panel/", views.panel, name="panel"),
    path("vault/kit/", views.make_kit, name="make_kit"),
    path("vault/act/<slug:action>/", views.act, name="act"),
]
