"""Boards on the desk: words and moves through the services, history is read."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from apps.access import services as access
from apps.access.models import Principal, User
from apps.boards import services
from apps.boards.forms import ADMIN_FIELDS, BoardAdminForm, TaskAdminForm
from apps.boards.models import (
    WORKING,
    Board,
    Task,
    TaskComment,
    TaskEvent,
)
from apps.common.admin import ReadOnlyAdmin, ServiceAdmin, reason_of, state_badge
from apps.common.errors import PolarError


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


@admin.register(Board)
class BoardAdmin(ServiceAdmin):
    can_add = can_change = True
    list_display = ("slug", "title", "workspace", "version", "archived_at")
    list_select_related = ("workspace",)
    search_fields = ("slug", "title")
    form = BoardAdminForm  # type: ignore[assignment] # our base admins any model
    fields = ("workspace", "slug", "title", "archived", "expected_version")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> tuple[str, ...]:
        return ("workspace", "slug") if obj else ()

    def write(
        self, request: HttpRequest, obj: Any, form: Any, *, change: bool
    ) -> Board:
        by, title = principal_of(request), form.cleaned_data["title"]
        if not change:
            return services.create_board(
                by=by, workspace=obj.workspace, slug=obj.slug, title=title
            )
        return services.update_board(
            by=by,
            board_id=obj.pk,
            expected_version=form.cleaned_data.get("expected_version") or 0,
            title=title,
            archived=form.cleaned_data["archived"],
        )


def _move(status: str) -> Any:
    """Make the action that moves the chosen tasks to one status."""

    def move(modeladmin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for task in queryset.order_by("id"):
            try:
                services.transition_task(
                    by=principal_of(request),
                    task_id=task.id,
                    status=status,
                    expected_version=task.version,
                    reason=reason_of(request),
                )
            except PolarError as error:
                messages.error(request, f"Not moved: {task}: {error} ({error.code})")

    move.__name__ = f"move_to_{status}"
    described = admin.action(
        description=f"Move to {status.replace('_', ' ')}", permissions=["change"]
    )
    return described(move)


@admin.action(description="Check again (stale tasks)", permissions=["change"])
def revalidate(modeladmin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
    """Say of the chosen stale tasks that they still hold."""
    for task in queryset.order_by("id"):
        try:
            services.revalidate_task(
                by=principal_of(request),
                task_id=task.id,
                reason=reason_of(request),
                expected_version=task.version,
            )
        except PolarError as error:
            messages.error(request, f"Not changed: {task}: {error} ({error.code})")


@admin.register(Task)
class TaskAdmin(ServiceAdmin):
    can_add = can_change = True
    list_display = ("title", "board", "drawn_status", "priority", "due_date", "version")
    list_select_related = ("board",)
    list_filter = ("status", "priority", "board")
    search_fields = ("title", "id")
    form = TaskAdminForm  # type: ignore[assignment] # our base admins any model
    raw_id_fields = ("assignee_profile", "assignee_user")
    fields = ("board", *ADMIN_FIELDS, "status", "status_reason", "expected_version")
    readonly_fields = ("status", "status_reason")
    actions = (*map(_move, WORKING), revalidate)

    @admin.display(description="status", ordering="status")
    def drawn_status(self, obj: Task) -> SafeString:
        return state_badge(obj.status)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> tuple[str, ...]:
        return (*self.readonly_fields, *(("board",) if obj else ()))

    def write(self, request: HttpRequest, obj: Any, form: Any, *, change: bool) -> Task:
        return services.upsert_task(
            by=principal_of(request),
            board=obj.board,
            draft=form.draft(),
            task_id=obj.pk if change else None,
            expected_version=form.cleaned_data.get("expected_version") or 0,
        )


@admin.register(TaskEvent)
class TaskEventAdmin(ReadOnlyAdmin):
    list_display = ("type", "task_id", "from_status", "to_status", "actor_label")
    list_filter = ("type",)
    search_fields = ("task_id",)
    date_hierarchy = "created_at"


@admin.register(TaskComment)
class TaskCommentAdmin(ReadOnlyAdmin):
    list_display = ("task_id", "actor_label", "trace_id", "created_at")
    search_fields = ("task_id", "trace_id")
    date_hierarchy = "created_at"
