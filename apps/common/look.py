"""How a state is drawn: a shape, a word and a tone, always all three.

Hides: the table from a state's stored value to its tone class and its icon.
Invariant: a value nobody listed is drawn as `wait`, never as healthy.
"""

from dataclasses import dataclass
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString


@dataclass(frozen=True)
class Drawing:
    tone: str
    icon: str


_TABLE: Final[dict[Drawing, str]] = {
    Drawing("ok", "ok"): (
        "ok succeeded done closed_ok allowed approved approve enabled active ready"
        " delivered fired verified passed healthy granted settled answered served"
        " sent cleared resolved connected"
    ),
    Drawing("ok", "seal"): "sealed_event sealed_row",
    Drawing("ok", "trusted"): "trusted",
    Drawing("ok", "reviewed"): "reviewed",
    Drawing("ok", "breaker-closed"): "closed",
    Drawing(
        "live", "running"
    ): "monitoring running executing started half_done probing streaming",
    Drawing(
        "wait", "queued"
    ): "accepted s4 queued requested pending planned ready_to_run",
    Drawing("wait", "waiting"): (
        "waiting waiting_provider waiting_timer waiting_tool waiting_child"
        " waiting_budget scheduled retrying parked"
    ),
    Drawing("wait", "lock"): "waiting_vault sealed",
    Drawing("wait", "pause"): "paused disabled",
    Drawing("wait", "sandboxed"): "sandboxed",
    Drawing("attention", "approval"): "waiting_approval awaiting_approval asked",
    Drawing("attention", "person"): "waiting_operator",
    Drawing(
        "attention", "attention"
    ): "degraded wanted expired missed warning approval s3 mitigating",
    Drawing("attention", "truncated"): "truncated",
    Drawing("attention", "stale"): "stale",
    Drawing("attention", "breaker-half"): "half_open",
    Drawing("critical", "critical"): "critical failed failing error down s1 s2 firing",
    Drawing("critical", "blocked"): "denied blocked rejected revoked refused",
    Drawing("critical", "halt"): "halted",
    Drawing("critical", "dead"): "dead_letter dead",
    Drawing("critical", "breaker-open"): "open",
    Drawing("doubt", "doubt"): "unknown in_doubt",
    Drawing("doubt", "conflicted"): "conflicted",
    Drawing("off", "ended"): "cancelled canceled dismissed record inactive released",
    Drawing("off", "skipped"): "skipped removed none unused disconnected",
    Drawing("lane", "lane-brain"): "brain",
    Drawing("lane", "lane-worker"): "worker",
    Drawing("lane", "lane-local"): "local",
}
_BY_STATE: Final = {
    state: drawing for drawing, states in _TABLE.items() for state in states.split()
}
_UNLISTED: Final = Drawing("wait", "queued")


def drawing_of(state: str) -> Drawing:
    """Return tone and icon of a stored state value."""
    return _BY_STATE.get(str(state).lower().replace("-", "_"), _UNLISTED)


def states_by_tone() -> list[tuple[str, list[str]]]:
    """Every state with a drawing of its own, by the tone it is drawn in."""
    found: dict[str, list[str]] = {}
    for state, drawing in _BY_STATE.items():
        found.setdefault(drawing.tone, []).append(state)
    return list(found.items())


def icon(name: str, extra: str = "") -> SafeString:
    """Return one symbol of the sprite as an inline SVG reference."""
    return format_html(
        '<svg class="icon {}" viewBox="0 0 16 16" aria-hidden="true">'
        '<use href="#i-{}"/></svg>',
        extra,
        name,
    )


def badge(state: str, label: str = "") -> SafeString:
    """Return the badge of a state: shape, word, tone.

    Shape: an unlisted state is drawn as waiting; an empty one as nothing."""
    if not state:
        return SafeString("")
    drawing = drawing_of(state)
    word = label or str(state).lower().replace("_", " ")
    tone = "badge--lane" if drawing.tone == "lane" else f"is-{drawing.tone}"
    shape = icon(drawing.icon, "spin" if drawing.icon == "running" else "")
    return format_html('<span class="badge {}">{}{}</span>', tone, shape, word)
