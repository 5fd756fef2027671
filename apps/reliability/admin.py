"""Admin pages of reliability: everything is read-only here."""

from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin
from apps.reliability.models import (
    Alert,
    DrillRun,
    DrillStep,
    Incident,
    Notice,
    Recovery,
    Rollback,
    Silence,
    SloMark,
    SloMinute,
    StepResult,
    Webhook,
)


@admin.register(Rollback)
class RollbackAdmin(ReadOnlyAdmin):
    list_display = (
        "detected_at",
        "state",
        "problem",
        "events_lost",
        "conflicted",
        "lost",
        "stale",
        "decided_by",
    )
    list_filter = ("state",)
    search_fields = ("alarm_id__exact",)
    ordering = ("-id",)


@admin.register(Recovery)
class RecoveryAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "kind",
        "source",
        "ok",
        "took_ms",
        "age_seconds",
        "events_lost",
        "by",
    )
    list_filter = ("kind", "ok", "vendor")
    search_fields = ("source",)
    ordering = ("-id",)


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "code", "key", "level", "state", "origin", "summary")
    list_filter = ("state", "level", "origin", "code")
    search_fields = ("id__exact", "key", "trace_id__exact")
    ordering = ("-id",)


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin):
    list_display = ("number", "severity", "state", "title", "owner", "created_at")
    list_filter = ("severity", "state")
    search_fields = ("id__exact", "title")
    ordering = ("-id",)


@admin.register(StepResult)
class StepResultAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "incident", "step", "ok", "summary", "by")
    list_filter = ("ok", "step")
    list_select_related = ("incident",)
    search_fields = ("incident__id__exact",)
    ordering = ("-id",)


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "alert", "event", "route", "state", "problem")
    list_filter = ("state", "route")
    list_select_related = ("alert",)
    search_fields = ("alert__id__exact",)
    ordering = ("-id",)


@admin.register(Silence)
class SilenceAdmin(ReadOnlyAdmin):
    list_display = ("code", "key", "until", "set_by", "reason", "lifted_at")
    search_fields = ("code", "key")
    ordering = ("-id",)


@admin.register(Webhook)
class WebhookAdmin(ReadOnlyAdmin):
    list_display = ("url", "local", "set_by", "created_at")
    fields = ("url", "local", "set_by", "created_at")
    search_fields = ("url",)
    ordering = ("-id",)


@admin.register(SloMinute)
class SloMinuteAdmin(ReadOnlyAdmin):
    list_display = ("minute", "slo", "total", "bad")
    list_filter = ("slo",)
    ordering = ("-minute",)


@admin.register(SloMark)
class SloMarkAdmin(ReadOnlyAdmin):
    list_display = ("slo", "judged_to")
    ordering = ("slo",)


@admin.register(DrillRun)
class DrillRunAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "slug", "state", "asked_by", "finished_at")
    list_filter = ("slug", "state")
    search_fields = ("id__exact", "evidence_sha256__exact")
    ordering = ("-id",)


@admin.register(DrillStep)
class DrillStepAdmin(ReadOnlyAdmin):
    list_display = ("drill", "part", "at_ms", "tone", "text")
    list_filter = ("part", "tone")
    search_fields = ("drill__id__exact",)
    ordering = ("-id",)
    list_select_related = ("drill",)
