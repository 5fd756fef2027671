"""Boards on the desk. Rows are written by services alone."""

from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin, state_badge

from .models import Board, Task, TaskEvent


@admin.register(Board)
class BoardAdmin(ReadOnlyAdmin):
    list_display = ("slug", "title", "workspace", "created_at")
    search_fields = ("slug", "title")


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    list_display = ("title", "board", "drawn_status", "priority", "due_date", "version")
    list_select_related = ("board",)
    list_filter = ("status", "priority", "board")
    search_fields = ("title", "id")

    @admin.display(description="status", ordering="status")
    def drawn_status(self, obj: Task) -> str:
        return state_badge(obj.status)


@admin.register(TaskEvent)
class TaskEventAdmin(ReadOnlyAdmin):
    list_display = ("type", "task_id", "from_status", "to_status", "actor_label")
    list_filter = ("type",)
    search_fields = ("task_id",)
    date_hierarchy = "created_at"
