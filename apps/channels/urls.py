from django.urls import path

from apps.channels import views

app_name = "channels"

urlpatterns = [
    path("hooks/<slug:kind>/<uuid:account_id>/", views.hook, name="hook"),
    path("channels/", views.account_list, name="accounts"),
    path("channels/people/", views.people, name="people"),
    path("channels/outbox/", views.outbox, name="outbox"),
    path("channels/act/<slug:action>/", views.act, name="act"),
    path("channels/<uuid:account_id>/", views.account_page, name="account"),
    path("chat/", views.conversation_list, name="list"),
    path("chat/new/", views.start, name="start"),
    path("chat/<uuid:conversation_id>/", views.conversation, name="conversation"),
    path("chat/<uuid:conversation_id>/send/", views.send, name="send"),
    path("chat/turns/<uuid:turn_id>/answer/", views.answer, name="answer"),
    path("chat/turns/<uuid:turn_id>/stream/", views.stream, name="stream"),
]
