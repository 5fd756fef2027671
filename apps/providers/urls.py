from django.urls import path

from apps.providers import views

app_name = "providers"

urlpatterns = [
    path("providers/", views.provider_list, name="list"),
    path("providers/panel/", views.panel, name="panel"),
]
