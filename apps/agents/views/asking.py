"""Who asks for a page."""

from django.http import HttpRequest

from apps.access import services as access
from apps.access.models import Principal, User


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)
