"""Agents in the admin: profiles are edited through their service, the rest is read."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from apps.access import services as access
from apps.access.models import User
from apps.agents import services
from apps.agents.forms import ProfileForm
from apps.agents.models import (
    VERSIONED_FIELDS,
    AgentProfile,
    Conversation,
    Delta,
    Handoff,
    Memory,
    MemoryWord,
    ProfilePin,
    ProfileVersion,
    RecursionHour,
    RecursionMark,
    Step,
    Turn,
    UsageHour,
    UsageMark,
)
from apps.common.admin import ReadOnlyAdmin, ServiceAdmin, link_to, state_badge


@admin.register(AgentProfile)
class AgentProfileAdmin(ServiceAdmin):
    can_add = can_change = True
    list_display = ("slug", "title", "workspace", "lane", "version", "is_active")
    list_filter = ("lane", "is_active", "workspace")
    list_select_related = ("workspace",)
    search_fields = ("slug", "title")
    form = ProfileForm  # type: ignore[assignment] # our base admins any model
    fields = (
        "workspace",
        "slug",
        *VERSIONED_FIELDS,
        "pinned_model",
        "version",
        "expected_version",
    )
    readonly_fields = ("version",)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> tuple[str, ...]:
        fixed = ("workspace", "slug") if obj else ()
        return (*self.readonly_fields, *fixed)

    def write(
        self, request: HttpRequest, obj: Any, form: Any, *, change: bool
    ) -> AgentProfile:
        assert isinstance(request.user, User)
        shown = {*VERSIONED_FIELDS, "pinned_model"} & set(form.changed_data)
        return services.save_profile(
            by=access.principal_for_user(user=request.user),
            workspace=obj.workspace,
            slug=obj.slug,
            changes={name: form.cleaned_data[name] for name in shown},
            expected_version=form.cleaned_data.get("expected_version") or 0,
        )


@admin.register(ProfileVersion)
class ProfileVersionAdmin(ReadOnlyAdmin):
    list_display = ("profile", "version", "by_label", "created_at")
    list_select_related = ("profile",)
    search_fields = ("profile__slug",)
    ordering = ("-id",)


@admin.register(ProfilePin)
class ProfilePinAdmin(ReadOnlyAdmin):
    list_display = ("scope", "key", "profile_slug", "by_label", "created_at")
    list_filter = ("scope",)
    search_fields = ("key", "profile_slug")
    ordering = ("scope", "key", "id")


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    list_display = ("title", "workspace", "principal", "channel", "last_at")
    list_filter = ("channel", "workspace")
    list_select_related = ("workspace", "principal")
    search_fields = ("title", "external_key", "id")
    date_hierarchy = "last_at"
    ordering = ("-last_at", "-id")


@admin.register(Turn)
class TurnAdmin(ReadOnlyAdmin):
    list_display = ("id", "badge", "profile", "served_by", "run_link", "created_at")
    list_filter = ("state", "degraded", "lane_change")
    list_select_related = ("profile", "run")
    search_fields = ("id", "trace_id")
    date_hierarchy = "created_at"
    ordering = ("-id",)

    @admin.display(description="state", ordering="state")
    def badge(self, turn: Turn) -> SafeString:
        return state_badge(turn.state)

    @admin.display(description="run")
    def run_link(self, turn: Turn) -> SafeString | str:
        return link_to(turn.run)


@admin.register(Step)
class StepAdmin(ReadOnlyAdmin):
    list_display = ("turn", "seq", "kind", "badge", "error_code", "started_at")
    list_filter = ("kind", "state")
    list_select_related = ("turn",)
    search_fields = ("turn__id", "turn__trace_id")
    ordering = ("-id",)

    @admin.display(description="state", ordering="state")
    def badge(self, step: Step) -> SafeString:
        return state_badge(step.state)


@admin.register(Handoff)
class HandoffAdmin(ReadOnlyAdmin):
    list_display = ("id", "source", "target", "mode", "badge", "reason", "created_at")
    list_filter = ("state", "mode", "origin")
    search_fields = ("id", "trace_id", "source", "target")
    date_hierarchy = "created_at"
    ordering = ("-id",)

    @admin.display(description="state", ordering="state")
    def badge(self, row: Handoff) -> SafeString:
        return state_badge(row.state)


@admin.register(Memory)
class MemoryAdmin(ReadOnlyAdmin):
    list_display = ("id", "workspace", "scope", "agent", "by_label", "updated_at")
    list_filter = ("scope", "workspace")
    list_select_related = ("workspace",)
    search_fields = ("=id", "=trace_id")
    exclude = ("text",)
    ordering = ("-id",)


@admin.register(MemoryWord)
class MemoryWordAdmin(ReadOnlyAdmin):
    list_display = ("id", "memory")
    exclude = ("word",)
    search_fields = ("=memory__id",)
    ordering = ("-id",)


@admin.register(Delta)
class DeltaAdmin(ReadOnlyAdmin):
    list_display = ("turn", "attempt", "seq", "kind")
    list_filter = ("kind",)
    list_select_related = ("turn",)
    ordering = ("-id",)


@admin.register(UsageHour)
class UsageHourAdmin(ReadOnlyAdmin):
    list_display = (
        "hour",
        "origin",
        "served_provider",
        "served_model",
        "calls",
        "failures",
        "cost",
    )
    list_filter = ("origin", "served_lane")
    ordering = ("-id",)


@admin.register(UsageMark)
class UsageMarkAdmin(ReadOnlyAdmin):
    list_display = ("id", "summed_to")
    ordering = ("id",)


@admin.register(RecursionHour)
class RecursionHourAdmin(ReadOnlyAdmin):
    list_display = ("hour", "told", "a", "b", "count")
    list_filter = ("told",)
    search_fields = ("=a", "=b")
    ordering = ("-id",)


@admin.register(RecursionMark)
class RecursionMarkAdmin(ReadOnlyAdmin):
    list_display = ("id", "summed_to")
    ordering = ("id",)
