from django.urls import path

from apps.agents import views

app_name = "agents"

urlpatterns = [
    path("agents/", views.agent_list, name="list"),
    path("agents/<uuid:profile_id>/", views.agent_detail, name="detail"),
    path("agents/new/", views.new, name="new"),
    path("agents/pins/", views.pin_list, name="pins"),
    path("agents/pins/change/", views.pin_change, name="pin_change"),
    path("agents/<uuid:profile_id>/edit/", views.edit, name="edit"),
    path("agents/<uuid:profile_id>/lane/", views.switch_lane, name="switch_lane"),
    path("recursion/", views.recursion_map, name="recursion"),
    path("memory/", views.memory_list, name="memory"),
    path("memory/<uuid:memory_id>/change/", views.memory_change, name="memory_change"),
    path("usage/", views.usage_page, name="usage"),
    path("usage/panel/", views.spend, name="spend"),
    path("usage.csv", views.usage_csv, name="usage_csv"),
    path("traces/<str:trace_id>/", views.trace, name="trace"),
]
