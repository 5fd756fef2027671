"""Every page of the site that can be looked at, by the URL configuration itself."""

import re
from collections.abc import Iterator

from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.urls.resolvers import RoutePattern

#: Which thing a part of an address names: its model and the field that is written.
NAMED: dict[str, tuple[str, str]] = {
    "account_id": ("channels.Account", "id"),
    "agent_id": ("agents.AgentProfile", "id"),
    "alert_id": ("reliability.Alert", "id"),
    "approval_id": ("gateway.ApprovalRequest", "id"),
    "board_id": ("boards.Board", "id"),
    "budget_id": ("gateway.Budget", "id"),
    "certificate_id": ("extensions.Certificate", "id"),
    "conversation_id": ("agents.Conversation", "id"),
    "drill_id": ("reliability.DrillRun", "id"),
    "event_id": ("audit.Event", "id"),
    "ext_id": ("extensions.Extension", "ext_id"),
    "incident_id": ("reliability.Incident", "id"),
    "memory_id": ("agents.Memory", "id"),
    "profile_id": ("agents.AgentProfile", "id"),
    "proposal_id": ("runs.Proposal", "id"),
    "run_id": ("runs.Run", "id"),
    "schedule_id": ("runs.Schedule", "id"),
    "slug": ("providers.Provider", "slug"),
    "task_id": ("boards.Task", "id"),
    "trace_id": ("agents.Turn", "trace_id"),
    "turn_id": ("agents.Turn", "id"),
    "user_id": ("access.User", "id"),
}
#: A name in an address that is not of a row.
GIVEN = {
    "manual/<slug:slug>/": "manual/provider-failover/",
    "continuity/doctor/<slug:area>/": "continuity/doctor/key/",
    "drills/on-install/<slug:slug>/": "drills/on-install/blackout/",
}
#: Not pages: machines' doors, streams that stay open, ways out, and the admin and
#: the API, which are walked by their own lists.
NOT_PAGES = re.compile(r"^(hooks|api|admin|static)/|/(stream|evidence)/$|^log(in|out)/")


def addresses() -> list[str]:
    """The pages, each with an example of what it shows; those without one are left."""
    found = (_filled(route) for route in _routes(get_resolver().url_patterns, ""))
    return sorted({f"/{path}" for path in found if path is not None})


def whole(client: Client, paths: list[str]) -> list[str]:
    """Those that answer with a whole page: no form's target, part or download."""
    return [path for path in paths if b"</html>" in client.get(path).content]


def pattern(path: str) -> str:
    """The address with the ids taken out, to name one kind of page."""
    return re.sub(r"[0-9a-f]{32}|[0-9a-f-]{36}|(?<=/)[0-9]+(?=/)", "…", path)


def admin_addresses() -> list[str]:
    """The lists of the admin, and one record of each that has any."""
    paths = [reverse("admin:index")]
    for model in sorted(admin.site._registry, key=lambda model: model._meta.label):
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        paths.append(reverse(f"{name}_changelist"))
        if (row := _newest(model)) is not None:
            paths.append(reverse(f"{name}_change", args=[row.pk]))
    return paths


def _routes(patterns: list[URLPattern | URLResolver], before: str) -> Iterator[str]:
    for pattern in patterns:
        if not isinstance(pattern.pattern, RoutePattern):
            continue
        route = before + pattern.pattern._route
        if NOT_PAGES.search(route):
            continue
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, route)
        else:
            yield route


def _filled(route: str) -> str | None:
    if route in GIVEN:
        return GIVEN[route]
    for part in re.findall(r"<(?:\w+:)?(\w+)>", route):
        if part not in NAMED:
            return None
        label, field = NAMED[part]
        row = _newest(apps.get_model(label))
        if row is None:
            return None
        route = re.sub(rf"<(?:\w+:)?{part}>", str(getattr(row, field)), route)
    return route


def _newest(model: type[Model]) -> Model | None:
    return model._default_manager.order_by("-pk").first()
