"""Every address of the site."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import URLPattern, URLResolver, include, path

from apps.reliability import views as reliability

from .api import answer_once, api, for_the_known
from .api_page import api_page

#: The description of the API, and the list of its first page.
NINJAS_OWN = frozenset({"openapi-json", "openapi-view", "api-root"})


def _open_to_tokens(patterns: list[Any]) -> list[Any]:
    """The API carries its own check, so that it answers 401, not a redirect."""
    for pattern in patterns:
        view = pattern.callback
        # Ninja serves its own views to anybody.
        if pattern.name in NINJAS_OWN:
            view = for_the_known(view)
        pattern.callback = login_not_required(answer_once(view))
    return patterns


_api_patterns, _api_app, _api_namespace = api.urls

handler500 = "apps.common.middleware.server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", reliability.home, name="home"),
    path("", include("apps.reliability.urls")),
    path("", include("apps.access.urls")),
    path("", include("apps.audit.urls")),
    path("", include("apps.vault.urls")),
    path("", include("apps.gateway.urls")),
    path("", include("apps.runs.urls")),
    path("", include("apps.providers.urls")),
    path("", include("apps.extensions.urls")),
    path("", include("apps.agents.urls")),
    path("", include("apps.boards.urls")),
    path("", include("apps.channels.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/docs", api_page, name="api_docs"),
    path("api/v1/", (_open_to_tokens(_api_patterns), _api_app, _api_namespace)),
]
