"""What a person types about an account, parsed; the services judge it."""

from uuid import UUID

from django.http import QueryDict

from apps.channels.services import Changes
from apps.common.errors import FieldProblem, Invalid
from apps.common.units import whole_number


def read_changes(form: QueryDict) -> Changes:
    """Read an account's settings; ids are parted by space, comma or line."""
    per_minute = whole_number(form.get("per_minute", ""), most=100_000)
    if per_minute is None:
        problem = FieldProblem("per_minute", "not a number", "1 to 600")
        raise Invalid("Say how many messages a minute.", fields=(problem,))
    return Changes(
        allowed_senders=_listed(form.get("allowed_senders", "")),
        allowed_chats=_listed(form.get("allowed_chats", "")),
        per_minute=per_minute,
        alerts_to=form.get("alerts_to", ""),
        approvals_to=form.get("approvals_to", ""),
        canary_chat=form.get("canary_chat"),
        hears_by=form.get("hears_by") or None,
        public_url=form.get("public_url"),
    )


def read_token(form: QueryDict) -> str:
    """Read a token: Slack's parts have a field each, and are one secret."""
    parts = (form.get(name, "").strip() for name in ("token", "app_token", "signing"))
    return " ".join(part for part in parts if part)


def read_id(form: QueryDict, name: str) -> UUID:
    """Raises: Invalid."""
    try:
        return UUID(form.get(name, ""))
    except ValueError:
        problem = FieldProblem(name, "missing", "an id")
        raise Invalid(f"{name} is missing.", fields=(problem,)) from None


def _listed(text: str) -> list[str]:
    return text.replace(",", " ").split()
