from django.urls import path

from apps.access import views
from apps.access.views import signing_on

app_name = "access"

urlpatterns = [
    path("login/", views.LoginView.as_view(), name="login"),
    path("login/code/", views.second_factor, name="second_factor"),
    path("login/set-up/", views.set_up_factor, name="set_up_factor"),
    path("login/sign-on/", signing_on.sign_on, name="sign_on"),
    path("login/sign-on/return/", signing_on.sign_on_return, name="sign_on_return"),
    path("logout/", views.LogoutView.as_view(), name="logout"),
    path("account/", views.account, name="account"),
    path("account/password/", views.change_password, name="password"),
    path("account/zone/", views.choose_zone, name="zone"),
    path("account/factor/", views.set_up_factor, name="factor"),
    path("account/factor/remove/", views.remove_factor, name="remove_factor"),
    path("account/sessions/<uuid:sign_in_id>/end/", views.end_session, name="end"),
    path("users/", views.users, name="users"),
    path("users/add/", views.add_user, name="add_user"),
    path("users/<uuid:user_id>/", views.change_user, name="change_user"),
    path("users/policy/", views.set_policy, name="policy"),
    path("tokens/", views.tokens, name="tokens"),
    path("tokens/add/", views.add_token, name="add_token"),
    path("tokens/<uuid:token_id>/revoke/", views.revoke_token, name="revoke_token"),
    path("tokens/<uuid:token_id>/rate/", views.limit_token, name="limit_token"),
]
