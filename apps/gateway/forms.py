"""What the page of grants takes in."""

from datetime import timedelta

from django import forms

from apps.access.queries import default_workspace
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid

from .ports import CallKind
from .services import NewGrant

#: The longest a grant made on the page may hold. Units: hours.
MOST_HOURS = 8760


class GrantForm(forms.Form):
    """A grant, in the words of a person; lists are separated by commas."""

    kind = forms.ChoiceField(choices=CallKind.choices)
    capabilities = forms.CharField(max_length=500)
    agents = forms.CharField(max_length=500, required=False)
    targets = forms.CharField(max_length=2000, required=False)
    hours = forms.IntegerField(min_value=1, max_value=MOST_HOURS)
    reason = forms.CharField(max_length=300)

    def as_new(self) -> NewGrant:
        """Raises: Invalid naming the fields."""
        if not self.is_valid():
            problems = tuple(
                FieldProblem(name, str(errors[0]))
                for name, errors in self.errors.items()
            )
            named = "; ".join(f"{each.path}: {each.problem}" for each in problems)
            raise Invalid(named, fields=problems)
        said = self.cleaned_data
        narrowed = {name: _listed(said[name]) for name in ("agents", "targets")}
        return NewGrant(
            kind=CallKind(said["kind"]),
            capabilities=tuple(_listed(said["capabilities"])),
            reason=said["reason"],
            workspace=default_workspace(),
            expires_at=clock.now() + timedelta(hours=said["hours"]),
            constraints={name: found for name, found in narrowed.items() if found},
        )


def _listed(text: str) -> list[str]:
    return [each.strip().removeprefix("@") for each in text.split(",") if each.strip()]
