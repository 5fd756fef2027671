from django.urls import path

from apps.channels import views

app_name = "channels"

urlpatterns = [
    path("hooks/<slug:kind>/<uuid:account_id>/", views.hook, name="hook"),
    path("chat/", views.conversation_list, name="list"),
    path("chat/new/", views.start, name="start"),
    path("chat/<uuid:conversation_id>/", views.conversation, name="conversation"),
    path("chat/<uuid:conversation_id>/send/", views.send, name="send"),
    path("chat/turns/<uuid:turn_id>/answer/", views.answer, name="answer"),
    path("chat/turns/<uuid:turn_id>/stream/", views.stream, name="stream"),
]
