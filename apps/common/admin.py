"""Bases of every admin page: what may be written there, and how it is drawn.

Hides: how a service's refusal becomes a message, and how long tables are counted.
Invariants: `ReadOnlyAdmin` offers no write; `ServiceAdmin` writes only through
`write` and `remove`, which call the app's services; no page counts a whole table.
"""

import re
from collections.abc import Callable, Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.core.paginator import Paginator
from django.db.models import (
    CharField,
    DateTimeField,
    Model,
    QuerySet,
    TextField,
    UUIDField,
)
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.common import ids, listing, look
from apps.common.errors import Denied, PolarError
from apps.common.templatetags.look import when
from apps.common.units import whole_number

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Model]
    _Paginator = Paginator[Model]
else:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator


#: When a record came to be, by the names that our tables give it.
DATED = ("created_at", "occurred_at")
DATE_PARTS = ("year", "month")
#: Ids begin with the Unix epoch.
MINYEAR = 1970
LONGEST_CELL = 80


UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def truncated(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


class ConstantPaginator(_Paginator):
    """Count at most `ceiling` rows, so a page of a huge table costs the same."""

    ceiling = listing.COUNTED

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


class WhyForm(ActionForm):
    """What an action does is recorded with a reason."""

    reason = forms.CharField(
        label="Why", max_length=200, required=False, widget=forms.TextInput()
    )


def reason_of(request: HttpRequest) -> str:
    """The reason that was given with an action."""
    return request.POST.get("reason", "").strip()


Column = Callable[[Any], object]


def _column(field: Any, draw: Callable[[Any], object]) -> Column:
    """A field as a column that is drawn our way and sorts as ever."""

    def shown(row: Any) -> object:
        value = getattr(row, field.attname)
        return None if value in (None, "") else draw(value)

    shown.__name__ = field.name
    described = admin.display(description=field.verbose_name, ordering=field.name)
    column: Column = described(shown)
    return column


def _short_id(value: Any) -> SafeString:
    text = str(value)
    return format_html('<code title="{}">…{}</code>', text, text.replace("-", "")[-8:])


def _cell(value: Any) -> str:
    return _short_id(value) if UUID_TEXT.fullmatch(str(value)) else truncated(value)


def _trace(value: str) -> SafeString:
    url = reverse("agents:trace", args=[value])
    return format_html('<a class="mono" href="{}">{}</a>', url, value[:10])


class BaseAdmin(_ModelAdmin):
    paginator = ConstantPaginator
    action_form = WhyForm
    show_full_result_count = False
    list_per_page = 50
    list_select_related: ClassVar[bool | list[str] | tuple[str, ...]] = True
    empty_value_display = "—"

    def __init__(self, model: Any, site: Any) -> None:
        super().__init__(model, site)
        names = {field.name for field in model._meta.concrete_fields}
        if self.date_hierarchy is None:
            found = [name for name in DATED if name in names]
            type(self).date_hierarchy = found[0] if found else None

    def get_list_display(self, request: HttpRequest) -> Any:
        """Draw ids short, times as everywhere, and link what has a trace."""
        fields = {field.name: field for field in self.opts.concrete_fields}
        return [
            self._drawn(fields.get(str(name))) or name
            for name in super().get_list_display(request)
        ]

    def _drawn(self, field: Any) -> Column | None:
        if isinstance(field, DateTimeField):
            return _column(field, when)
        if isinstance(field, UUIDField):
            return _column(field, _short_id)
        if field is not None and field.name == "trace_id":
            return _column(field, _trace)
        if isinstance(field, TextField | CharField) and not field.flatchoices:
            return _column(field, _cell)
        return None

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *given: Any
    ) -> HttpResponse | None:
        """Nothing is done without a reason."""
        if request.POST.get("action") and not reason_of(request):
            messages.error(request, "Not done: say why.")
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, *given)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Keep what the person may see; an administrator keeps all records."""
        rows = self._dated(request, super().get_queryset(request))
        user: Any = request.user
        visible_to = getattr(rows, "visible_to", None)
        if visible_to is None or user.is_superuser:
            return rows
        narrowed: QuerySet[Any] = visible_to(user.principal)
        return narrowed

    def _dated(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Narrow a chosen date by the ids too, which sort by time and are indexed."""
        name = self.date_hierarchy
        if name not in DATED or not isinstance(self.opts.pk, UUIDField):
            return rows
        given = [request.GET.get(f"{name}__{part}", "") for part in DATE_PARTS]
        year, month = (whole_number(each) or 0 for each in given[:2])
        if not MINYEAR < year < MAXYEAR:
            return rows
        first = datetime(year, month if 1 <= month <= 12 else 1, 1, tzinfo=UTC)
        days = 32 if 1 <= month <= 12 else 367
        since, until = first - timedelta(days=1), first + timedelta(days=days)
        return rows.filter(pk__gte=ids.first_at(since), pk__lt=ids.first_at(until))


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
