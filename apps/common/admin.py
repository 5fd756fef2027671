"""Bases of every admin page: what may be written there, and how it is drawn.

Hides: how a service's refusal becomes a message, and how long tables are counted.
Invariants: `ReadOnlyAdmin` offers no write; `ServiceAdmin` writes only through
`write` and `remove`, which call the app's services; no page counts a whole table.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.common import look
from apps.common.errors import Denied, PolarError

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Model]
    _Paginator = Paginator[Model]
else:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator


class ConstantPaginator(_Paginator):
    """Count at most `ceiling` rows, so a page of a huge table costs the same."""

    ceiling = 10_000

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if isinstance(rows, QuerySet):
            return rows.order_by()[: self.ceiling].count()
        return min(len(rows), self.ceiling)


def state_badge(value: object, label: str = "") -> SafeString:
    """Draw a state as shape, word and tone; nothing for an empty value."""
    return look.badge("" if value is None else str(value), label)


def link_to(obj: Model | None, label: str = "") -> SafeString | str:
    """Link to an object's admin page, or name it where it has none."""
    if obj is None:
        return "—"
    meta = obj._meta
    text = label or str(obj)
    try:
        url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[obj.pk])
    except NoReverseMatch:
        return text
    return format_html('<a href="{}">{}</a>', url, text)


class BaseAdmin(_ModelAdmin):
    paginator = ConstantPaginator
    show_full_result_count = False
    list_per_page = 50
    list_select_related: ClassVar[bool | list[str] | tuple[str, ...]] = True
    empty_value_display = "—"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Keep what the person may see; an administrator keeps all records."""
        rows = super().get_queryset(request)
        user: Any = request.user
        visible_to = getattr(rows, "visible_to", None)
        if visible_to is None or user.is_superuser:
            return rows
        narrowed: QuerySet[Any] = visible_to(user.principal)
        return narrowed


class ReadOnlyAdmin(BaseAdmin):
    """For append-only tables and for rows that only machinery writes."""

    actions: Sequence[Any] | None = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return False


class ServiceAdmin(BaseAdmin):
    """Writes only through the app's services; a refusal is shown as its own text.

    A subclass sets `can_add`, `can_change`, `can_remove` to what it implements in
    `write` and `remove`.
    """

    can_add = False
    can_change = False
    can_remove = False
    actions_on_bottom = False

    def write(
        self, request: HttpRequest, obj: Any, form: Any, *, change: bool
    ) -> Model | None:
        """Call the service that creates or changes `obj`; return its row."""
        raise Denied(f"{self.opts.verbose_name} is not changed here")

    def remove(self, request: HttpRequest, obj: Any) -> None:
        """Call the service that removes `obj`."""
        raise Denied(f"{self.opts.verbose_name} is not removed here")

    def save_model(
        self, request: HttpRequest, obj: Any, form: Any, change: bool
    ) -> None:
        row = self.write(request, obj, form, change=change)
        if row is not None:
            obj.pk = row.pk
            obj.refresh_from_db()

    def save_related(
        self, request: HttpRequest, form: Any, formsets: Any, change: bool
    ) -> None:
        """Related rows are the service's business, not the form's."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.remove(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        for obj in queryset:
            self.remove(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.can_add and super().has_add_permission(request)

    def has_change_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return self.can_change and super().has_change_permission(request, obj)

    def has_delete_permission(
        self, request: HttpRequest, obj: Model | None = None
    ) -> bool:
        return self.can_remove and super().has_delete_permission(request, obj)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except PolarError as error:
            return _refused(request, error)

    def delete_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except PolarError as error:
            return _refused(request, error)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        except PolarError as error:
            return _refused(request, error)


def _refused(request: HttpRequest, error: PolarError) -> HttpResponse:
    messages.error(request, f"Not done: {error} ({error.code})")
    return HttpResponseRedirect(request.get_full_path())
