"""The way from what is on the screen to the page of the manual that helps."""

from django import template
from django.http import HttpRequest
from django.urls import reverse

from apps.reliability.engine import manual

register = template.Library()


@register.simple_tag
def help_page(request: HttpRequest | None) -> str:
    """Return the address of the page that helps with this one."""
    match = request.resolver_match if request is not None else None
    slug = manual.helps(match.view_name if match else "")
    if slug == manual.INDEX:
        return reverse("reliability:manual")
    return reverse("reliability:manual_page", args=[slug])
