"""Admin pages of the log: everything is read-only here."""

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from apps.audit.models import (
    Checkpoint,
    Event,
    Head,
    Payload,
    RunHead,
    SinkCursor,
    Tile,
)
from apps.common.admin import ReadOnlyAdmin


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = (
        "occurred_at",
        "gseq",
        "type",
        "actor_label",
        "decision",
        "subject_kind",
        "subject_id",
        "trace_id",
    )
    # each offers the values of the newest records and goes by an index
    list_filter = ("type", "decision")
    search_fields = ("trace_id__exact", "subject_id__exact", "actor_id__exact")
    ordering = ("-id",)
    list_select_related = False


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "size", "root", "epoch")
    ordering = ("-size", "-id")


@admin.register(Head)
class HeadAdmin(ReadOnlyAdmin):
    list_display = ("size", "root", "epoch", "epoch_size")
    exclude = ("frontier",)


@admin.register(Payload)
class PayloadAdmin(ReadOnlyAdmin):
    list_display = ("event_id",)
    fields = ("event", "text")
    search_fields = ("event__trace_id__exact",)
    ordering = ("-event_id",)
    list_select_related = False


@admin.register(RunHead)
class RunHeadAdmin(ReadOnlyAdmin):
    list_display = ("run_id", "last_seq")
    search_fields = ("run_id__exact",)
    ordering = ("-run_id",)


@admin.register(SinkCursor)
class SinkCursorAdmin(ReadOnlyAdmin):
    list_display = ("name", "last_seq", "last_ack_at", "problem")
    ordering = ("name",)


@admin.register(Tile)
class TileAdmin(ReadOnlyAdmin):
    list_display = ("level", "index")
    fields = ("level", "index")
    ordering = ("level", "-index")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        return super().get_queryset(request).defer("hashes")  # 8 KB each, never shown
