"""Drawing words for templates: `badge`, `icon`, and filters for figures and times."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from markdown_it import MarkdownIt

from apps.common import clock, listing, look, units

register = template.Library()

#: Longer texts are shown as they are. Units: characters.
MOST_PROSE = 50_000
_PROSE = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
_PROSE.disable(["link", "image", "autolink", "reference", "html_block", "html_inline"])


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    return look.icon(name, extra)


@register.simple_tag
def badge(state: Any, label: str = "") -> SafeString:
    return look.badge("" if state is None else str(state), label)


@register.filter
def tone(state: Any) -> str:
    return look.drawing_of(str(state)).tone


@register.filter
def shape(state: Any) -> str:
    return look.drawing_of(str(state)).icon


@register.filter
def day_after(day: date) -> date:
    return day + timedelta(days=1)


@register.filter
def ended(text: Any) -> str:
    """A sentence with one full stop at its end, however it was typed."""
    return f"{str(text).rstrip(' .')}."


@register.filter
def words(state: Any) -> str:
    return str(state).lower().replace("_", " ")


@register.filter
def usd(micros: Any) -> str:
    return units.format_usd(int(micros or 0))


@register.filter
def number(value: Any) -> str:
    """A count as a person reads it: 1,048,221."""
    return f"{int(value or 0):,}"


@register.filter
def short(value: Any) -> str:
    """The tail of an id: UUIDv7 heads are all alike, tails tell rows apart."""
    return str(value).replace("-", "")[-6:]


@register.filter
def took(seconds: Any) -> str:
    """A duration as a person says it: 0.41 s, 39.2 s, 3 min 12 s, 2 h 5 min."""
    if seconds is None or seconds == "":
        return ""
    value = float(seconds)
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    whole = int(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


@register.filter
def ms(milliseconds: Any) -> str:
    return took(int(milliseconds or 0) / 1000)


@register.filter
def ago(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return took(max(0.0, (clock.now() - moment).total_seconds()))


@register.filter
def when(moment: datetime | None) -> SafeString:
    """A time in the operator's zone, the day where it is not today, UTC on hover."""
    if moment is None:
        return SafeString("")
    here = timezone.localtime(moment)
    today = timezone.localtime(clock.now()).date()
    text = here.strftime("%H:%M:%S" if here.date() == today else "%d %b %H:%M")
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        here.isoformat(),
        moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        text,
    )


@register.filter
def prose(text: Any) -> SafeString:
    """What a model wrote, its Markdown drawn: emphasis, lists, tables, code.

    HTML in it stays text, and so do links and pictures: a model's words may be a
    stranger's, and a label that hides its address would be theirs to choose.
    """
    said = str(text)
    if len(said) > MOST_PROSE:
        return format_html('<p class="answer">{}</p>', said)
    drawn = _PROSE.render(said).replace("<pre>", '<pre tabindex="0">')
    return SafeString(drawn)  # noqa: S308 (it escapes all HTML)


@register.filter
def is_here(request: Any, url: str) -> bool:
    """Whether the page being shown is `url` or lies below it."""
    path = getattr(request, "path", "")
    if url == "/" or path == url:
        return bool(path == url)
    below_another = path.startswith(f"{url}dead-letters/")
    return bool(path.startswith(url)) and not below_another


@register.inclusion_tag("admin/date_hierarchy.html")
def dates_of(changelist: Any) -> Any:
    """The admin's dates to narrow by, at a constant price."""
    return listing.dates_of(changelist)


@register.simple_tag
def counted(changelist: Any) -> str:
    """How many records a list of the admin has; it counts no further than it says."""
    count, opts = changelist.result_count, changelist.opts
    name = opts.verbose_name if count == 1 else opts.verbose_name_plural
    more = " or more" if count >= listing.COUNTED else ""
    return f"{count:,}{more} {name}"
