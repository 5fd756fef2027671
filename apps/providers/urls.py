from django.urls import path

from apps.providers import views

app_name = "providers"

urlpatterns = [
    path("providers/", views.provider_list, name="list"),
    path("providers/panel/", views.panel, name="panel"),
    path("providers/add/", views.add, name="add"),
    path("providers/routes/<uuid:route_id>/", views.change_route, name="route"),
    path("providers/p/<slug:slug>/", views.provider, name="provider"),
    path("providers/p/<slug:slug>/test/", views.test, name="test"),
    path("providers/p/<slug:slug>/key/", views.change_key, name="key"),
    path("providers/p/<slug:slug>/prices/", views.add_price, name="price"),
    path("providers/p/<slug:slug>/change/", views.change, name="change"),
]
