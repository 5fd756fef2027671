from django.urls import path

from apps.audit import views

app_name = "audit"

urlpatterns = [
    path("audit/", views.event_list, name="list"),
    path("audit/export/", views.export, name="export"),
    path("audit/verify/", views.verify, name="verify"),
    path("audit/<uuid:event_id>/", views.detail, name="detail"),
]
