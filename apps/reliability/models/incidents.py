"""Incidents: what people do about what happened.

Invariants: of one area one incident is open that an alert began; a step's results
are never overwritten; the timeline is the audit log's, not a table of ours.
"""

from django.db import models
from django.db.models import Q

from apps.access.models import Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.common.models import AppendOnly, Row
from apps.common.states import Transitions

audit_ports.declare(
    "incident.opened",
    "incident.raised",
    "incident.classified",
    "incident.moved",
    "incident.assigned",
    "incident.noted",
    "incident.step_done",
    "incident.step_failed",
    "incident.reviewed",
    "incident.carried_over",
    "incident.exported",
)


class Severity(models.TextChoices):
    S1 = "S1", "Critical"
    S2 = "S2", "High"
    S3 = "S3", "Medium"
    S4 = "S4", "Low"


class IncidentState(models.TextChoices):
    OPEN = "open"
    MITIGATING = "mitigating"
    MONITORING = "monitoring"
    RESOLVED = "resolved"
    REVIEWED = "reviewed"


I = IncidentState  # noqa: E741 (as the other lifecycles are written)
INCIDENT = Transitions(
    "incident",
    initial=I.OPEN,
    table={
        I.OPEN: [I.MITIGATING, I.MONITORING, I.RESOLVED],
        I.MITIGATING: [I.MONITORING, I.RESOLVED],
        I.MONITORING: [I.MITIGATING, I.RESOLVED],
        I.RESOLVED: [I.MITIGATING, I.REVIEWED],
    },
)
#: Somebody still works on it.
UNDER_WAY = (I.OPEN, I.MITIGATING, I.MONITORING)


class IncidentQuerySet(WorkspaceQuerySet):
    def under_way(self) -> "IncidentQuerySet":
        return self.filter(state__in=UNDER_WAY)


class Incident(Row):
    """One thing that went wrong, from its first alert to its review."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    number = models.PositiveIntegerField(unique=True)
    title = models.CharField(max_length=200)
    severity = models.CharField(max_length=2, choices=Severity.choices)
    #: Why it has this class, in words.
    because = models.CharField(max_length=300, blank=True, default="")
    state = models.CharField(max_length=12, choices=I.choices, default=I.OPEN)
    area = models.CharField(max_length=24, blank=True, default="")
    origin = models.CharField(max_length=10, default="real")
    opened_by = models.CharField(max_length=160)
    owner = models.CharField(max_length=160, blank=True, default="")
    #: {"communications": "bob", …}
    roles = models.JSONField(default=dict, blank=True)
    trace_ids = models.JSONField(default=list, blank=True)
    version = models.PositiveIntegerField(default=1)
    resolved_at = models.DateTimeField(null=True, blank=True)
    #: {"impact", "cause", "learned", "followUp"}, once reviewed.
    review = models.JSONField(default=dict, blank=True)

    objects = IncidentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "area", "origin"],
                condition=Q(state__in=UNDER_WAY) & ~Q(area=""),
                name="incident_area_once",
            ),
            models.CheckConstraint(
                condition=Q(state__in=I.values), name="incident_state"
            ),
            models.CheckConstraint(
                condition=Q(severity__in=Severity.values), name="incident_severity"
            ),
        ]
        indexes = [
            # the newest of a state
            models.Index(fields=["state", "-id"], name="incident_by_state"),
        ]

    def __str__(self) -> str:
        return f"INC-{self.number} {self.severity} {self.title}"

    @property
    def name(self) -> str:
        return f"INC-{self.number}"


class StepResult(AppendOnly):
    """What one carrying out of a step of the SOP found. Kept, also when repeated."""

    incident = models.ForeignKey(Incident, models.PROTECT, related_name="results")
    step = models.CharField(max_length=32)
    ok = models.BooleanField()
    summary = models.CharField(max_length=500)
    found = models.JSONField(default=dict, blank=True)
    by = models.CharField(max_length=160)

    class Meta:
        indexes = [
            # one incident's results in order
            models.Index(fields=["incident", "id"], name="stepresult_by_incident"),
        ]

    def __str__(self) -> str:
        return f"{self.step} {'done' if self.ok else 'failed'} {self.id}"
