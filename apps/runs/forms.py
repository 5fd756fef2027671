"""The form of a schedule. Rules live in the services; here only shapes."""

from typing import Any

from django import forms

from apps.runs.models import CatchUp, Overlap, Schedule, ScheduleKind
from apps.runs.ports import Planned, plannable

WORDS_OF_KIND = {
    ScheduleKind.CRON: "Cron: five fields",
    ScheduleKind.INTERVAL: "Interval: seconds",
    ScheduleKind.ONCE: "Once: a date and time",
    ScheduleKind.RRULE: "Recurrence rule (RRULE)",
}
WORDS_OF_CATCH_UP = {
    CatchUp.SKIP: "Leave them out",
    CatchUp.ONE: "Run once for all of them",
    CatchUp.ALL: "Run each of them",
}
WORDS_OF_OVERLAP = {
    Overlap.FORBID: "Leave the new one out",
    Overlap.QUEUE: "Let the new one wait its turn",
}
#: Prefix of the fields that make up the payload.
PAYLOAD = "payload-"
#: Parts of a payload that take several lines.
LONG = frozenset({"text", "checks"})


class ScheduleForm(forms.Form):
    """What a schedule starts, when, and how it treats its moments."""

    title = forms.CharField(max_length=160, label="What it does")
    slug = forms.SlugField(max_length=63, label="Short name")
    kind = forms.ChoiceField(choices=list(WORDS_OF_KIND.items()), label="Kind")
    expression = forms.CharField(
        max_length=400,
        label="When",
        help_text="0 9 * * 1-5 · 3600 · 2027-01-31T09:00 · FREQ=WEEKLY;BYDAY=MO",
    )
    timezone = forms.CharField(max_length=64, label="Time zone", initial="UTC")
    catch_up = forms.ChoiceField(
        choices=list(WORDS_OF_CATCH_UP.items()),
        initial=CatchUp.ONE,
        label="Missed moments",
    )
    overlap = forms.ChoiceField(
        choices=list(WORDS_OF_OVERLAP.items()), label="While one still runs"
    )
    jitter_seconds = forms.IntegerField(
        min_value=0, max_value=86_400, initial=0, label="Spread over, seconds"
    )
    quiet_from = forms.TimeField(required=False, label="Quiet from")
    quiet_to = forms.TimeField(required=False, label="Quiet to")
    daily_cap = forms.IntegerField(
        required=False, min_value=0, max_value=1000, label="Deliveries a day, at most"
    )
    max_failures = forms.IntegerField(
        min_value=1, max_value=100, initial=5, label="Disable after failures in a row"
    )
    expected_version = forms.IntegerField(
        required=False, min_value=1, widget=forms.HiddenInput
    )

    def __init__(self, *args: Any, planned: Planned | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.planned = planned
        for name, label in planned.fields if planned else ():
            widget = forms.Textarea(attrs={"rows": 4}) if name in LONG else None
            needed = planned is not None and name not in planned.optional
            field = forms.CharField(
                label=label, max_length=8000, widget=widget, required=needed
            )
            self.fields[PAYLOAD + name] = field
        for shown in self.fields.values():
            shown.widget.attrs["class"] = "input"

    def values(self) -> dict[str, Any]:
        """Return what was entered, in the words of the services."""
        cleaned = dict(self.cleaned_data)
        cleaned.pop("expected_version", None)
        names = [name for name in cleaned if name.startswith(PAYLOAD)]
        payload = {name.removeprefix(PAYLOAD): cleaned.pop(name) for name in names}
        optional = self.planned.optional if self.planned else frozenset()
        payload = {
            name: value
            for name, value in payload.items()
            if value or name not in optional
        }
        return {**cleaned, "payload": payload} if self.planned else cleaned


def form_of(schedule: Schedule) -> ScheduleForm:
    """Return a form that shows a schedule as it is."""
    initial = {
        name: getattr(schedule, name)
        for name in ScheduleForm.base_fields
        if name in FIELDS
    }
    initial |= {PAYLOAD + name: value for name, value in schedule.payload.items()}
    initial["expected_version"] = schedule.version
    return ScheduleForm(initial=initial, planned=plannable.find(schedule.run_kind))


FIELDS = frozenset(field.name for field in Schedule._meta.get_fields())
