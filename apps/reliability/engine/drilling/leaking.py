"""Drill I: an API token is in strange hands; revoked, it is dead within a second."""

from pathlib import Path

from django.conf import settings

from apps.access import services as access_services
from apps.audit.models import Event
from apps.common import clock
from apps.reliability import ports
from apps.reliability.engine import cloning
from apps.reliability.engine.drilling.asking import wait_for
from apps.reliability.engine.drilling.doubles import place
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.surgery import alter

#: How soon a revoked token is refused, by another process than the one that
#: revoked it. Units: seconds.
DEAD_WITHIN = 1.0
WEB_STARTS_WITHIN = 60.0
SCOPE = "runs:read"
GOOD, REFUSED = 200, 401


def prepare() -> None:
    """The web as a process of its own, and the token that a program uses."""
    notebook.kept["leaked"] = _issue("drill-program")


def remove_protection() -> None:
    notebook.tell("attention", "Control: the revocation will be taken back")


def _issue(name: str) -> tuple[str, str]:
    """Shape: the token's id, and its text."""
    system = access_services.system_principal()
    token, raw = access_services.issue_token(
        by=system,
        principal=system,
        name=name,
        scopes=[SCOPE],
        held=frozenset({SCOPE}),
    )
    return str(token.id), raw


def _status(raw: str) -> int:
    return ports.stage().status_of(f"http://{place(0)}/api/v1/runs", raw)


def web_answers() -> bool:
    """The web is up, lets a token of its own in and keeps a stranger out."""
    troupe = notebook.kept["troupe"]
    if "web" not in troupe:
        troupe["web"] = ports.stage().serve(place(0))
    _, raw = notebook.kept.get("fresh") or notebook.kept["leaked"]
    up = wait_for(
        lambda: _status(raw) == GOOD, WEB_STARTS_WITHIN, is_missed_by_control=False
    )
    held = up and _status("") == REFUSED
    said = f"The web answers {_status(raw)} with a token, {_status('')} without"
    notebook.tell("ok" if held else "critical", said)
    return held


def stranger_reads() -> int:
    """Somebody else uses the token, from the outside."""
    _, raw = notebook.kept["leaked"]
    status = _status(raw)
    notebook.fault(f"a stranger reads the runs with the token: {status}")
    return status


def revoke() -> bool:
    """An operator ends it and makes another; the control takes the end back."""
    token_id, _ = notebook.kept["leaked"]
    system = access_services.system_principal()
    access_services.revoke_token(by=system, token_id=token_id)
    notebook.kept["revoked_at"] = clock.monotonic()
    if notebook.is_control:
        alter("UPDATE access_token SET revoked_at = NULL")
    notebook.kept["fresh"] = _issue("drill-program-anew")
    notebook.tell("ok", "Recovery: revoked, and another one is made")
    return True


def leaked_is_dead() -> bool:
    """Ask until it is refused, and see how long that took."""
    _, raw = notebook.kept["leaked"]
    dead = wait_for(lambda: _status(raw) == REFUSED, 5)
    took = clock.monotonic() - notebook.kept["revoked_at"]
    said = f"answered {_status(raw)}, {took:.2f} s after it was revoked"
    return notebook.observe("old token dead", dead and took <= DEAD_WITHIN, said)


def fresh_one_works() -> bool:
    _, raw = notebook.kept["fresh"]
    status = _status(raw)
    return notebook.observe("new token works", status == GOOD, f"answered {status}")


def trail_names_it() -> bool:
    """Who made it, who ended it, and nowhere the token itself."""
    token_id, raw = notebook.kept["leaked"]
    types = set(Event.objects.about("token", token_id).values_list("type", flat=True))
    found = [
        path.name
        for path in Path(settings.POLAR_CLONE).rglob("*")
        if path.is_file() and path.name != cloning.PROGRESS
        if raw.encode() in path.read_bytes()
    ]
    said = (
        f"{', '.join(sorted(types))}; the token's text stands in {found or 'no file'}"
    )
    held = {"token.issued", "token.revoked"} <= types and not found
    return notebook.observe("trail names it", held, said)
