"""The slash command of incidents, plugged into channels."""

import re

from apps.access.models import Principal, Workspace
from apps.channels.ports import PluggedCommand
from apps.reliability import queries
from apps.reliability.models import Severity
from apps.reliability.services.incidents import NewIncident, open_incident

MOST_LISTED = 10


def incident(by: Principal, workspace: Workspace, argument: str) -> str:
    """List what is open; "S2 mail is down" opens one. Unsaid, it is S1: when in
    doubt the higher class.   Raises: as `open_incident`."""
    if not argument.strip():
        return _listed(by)
    said = re.fullmatch(r"(S[1-4])\b\W*(.*)", argument.strip(), re.DOTALL | re.I)
    severity = said[1].upper() if said else Severity.S1
    title = said[2] if said else argument
    new = NewIncident(title[:200], severity, because="said in a chat")
    opened = open_incident(by=by, new=new)
    return f"{opened.name} is open as {opened.severity}, and yours."


def _listed(by: Principal) -> str:
    found = queries.incidents(principal=by).under_way().order_by("severity", "id")
    lines = [
        f"{each.name} {each.severity} {each.state}: {each.title}"
        for each in found[:MOST_LISTED]
    ]
    return "\n".join(lines) or "No incident is open."


INCIDENT_COMMAND = PluggedCommand(
    "incident", "operator", "list incidents, or open one", incident
)
