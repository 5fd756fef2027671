"""The first five minutes: what somebody new does once, and whether it was done.

Hides: how the store tells that a step was taken. The home page offers the tour until
every step is, or until its reader hides it.
"""

from dataclasses import dataclass

from django.urls import reverse

from apps.access.models import Principal
from apps.agents.models import Turn
from apps.gateway.models import Halt
from apps.reliability.models import DrillRun
from apps.vault import queries as vault

#: The drill that a newcomer presses first.
FIRST_DRILL = "blackout"


@dataclass(frozen=True, slots=True)
class TourStep:
    """One thing to do, where, and whether it was done."""

    title: str
    text: str
    url: str
    action: str
    is_done: bool
    #: The drill that its button starts, where it has one.
    drill: str = ""


def steps(principal: Principal) -> list[TourStep]:
    """Return the steps in their order.   Reads: one row of four tables."""
    drill = DrillRun.objects.filter(slug=FIRST_DRILL).order_by("-id").first()
    return [
        TourStep(
            "Ask an agent what time it is",
            "It answers with a tool; the answer leads to its trace.",
            reverse("channels:list"),
            "Open the chat",
            Turn.objects.visible_to(principal).exists(),
        ),
        _blackout(drill),
        TourStep(
            "Stop everything once",
            "Press HALT above, look at what waits, and resume.",
            reverse("gateway:halts"),
            "Open the halts",
            Halt.objects.exists(),
        ),
        TourStep(
            "Make a recovery kit",
            "Without POLAR_VAULT_KEY or a kit, stored keys are lost with the machine.",
            reverse("vault:status"),
            "Open the vault",
            bool(vault.kits()),
        ),
    ]


def _blackout(drill: DrillRun | None) -> TourStep:
    title = "Press Provider blackout"
    if drill is None:
        text = "A clone of this install loses every remote model; watch the lanes move."
        place = reverse("reliability:drills")
        return TourStep(title, text, place, "Provider blackout", False, FIRST_DRILL)
    text = "Read the signed report: what was cut, what answered, and the grade."
    action = "Read the report" if drill.is_over else "Watch it"
    place = reverse("reliability:drill", args=[drill.id])
    return TourStep(title, text, place, action, drill.is_over)
