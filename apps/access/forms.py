"""Signing in, with the door that closes after ten wrong answers."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm

from apps.access.models import User
from apps.access.queries import signs_on_elsewhere
from apps.access.services import lockout
from apps.common.errors import RateLimited

DOOR = "password"


class SignInForm(AuthenticationForm):
    """Says the same of a wrong password and of a name that nobody bears."""

    def confirm_login_allowed(self, user: User) -> None:
        """One door each: a password of before does not pass the identity provider."""
        super().confirm_login_allowed(user)
        if signs_on_elsewhere(user):
            raise self.get_invalid_login_error()

    def clean(self) -> dict[str, Any]:
        name = self.cleaned_data.get("username") or ""
        address = address_of(self.request)
        try:
            lockout.check_open(DOOR, name, address)
        except RateLimited as error:
            raise forms.ValidationError(error.detail, code="locked") from error
        try:
            cleaned = super().clean()
        except forms.ValidationError:
            lockout.note_failure(DOOR, name, address)
            raise
        lockout.note_success(DOOR, name, address)
        return cleaned or self.cleaned_data


def address_of(request: Any) -> str:
    """The peer's own address; headers that claim another are not believed."""
    return str(request.META.get("REMOTE_ADDR", ""))[:45] if request else ""
