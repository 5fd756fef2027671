"""The admin site: every record, in the order of the house."""

from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

#: From what people ask for first, down to the ground.
APP_ORDER = (
    "agents",
    "channels",
    "boards",
    "runs",
    "gateway",
    "providers",
    "extensions",
    "reliability",
    "access",
    "vault",
    "audit",
    "auth",
)


class PolarAdminSite(AdminSite):
    site_title = "Polar"
    site_header = "Polar"
    index_title = "All records"
    site_url = "/"
    enable_nav_sidebar = False

    def get_app_list(
        self, request: HttpRequest, app_label: str | None = None
    ) -> list[Any]:
        rank = {label: place for place, label in enumerate(APP_ORDER)}
        apps = super().get_app_list(request, app_label)
        return sorted(apps, key=lambda app: rank.get(app["app_label"], len(rank)))

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Send people to the one sign-in page; explain a missing permission."""
        target = request.GET.get("next") or reverse("admin:index")
        if request.user.is_authenticated and not self.has_permission(request):
            return HttpResponseRedirect(reverse("home"))
        query = urlencode({"next": target})
        return HttpResponseRedirect(f"{reverse('access:login')}?{query}")

    def password_change(  # type: ignore[override]  # a redirect is an answer too
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Passwords are changed on one page, which counts and records."""
        return HttpResponseRedirect(reverse("access:account"))


class PolarAdminConfig(AdminConfig):
    default_site = "polar_site.admin.PolarAdminSite"

    def ready(self) -> None:
        super().ready()
        # Django's own form would change what a role may, with no word in the log.
        from django.contrib.admin import site
        from django.contrib.auth.models import Group

        from apps.access.admin import GroupAdmin

        site.unregister(Group)
        site.register(Group, GroupAdmin)
