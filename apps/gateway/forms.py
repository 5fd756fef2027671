"""What the pages of grants and budgets take in."""

from datetime import timedelta
from decimal import Decimal, InvalidOperation

from django import forms

from apps.access.queries import default_workspace
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid
from apps.common.units import MICRO

from .models import BudgetUnit
from .ports import CallKind
from .services import BudgetWanted, NewGrant

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


class BudgetForm(forms.Form):
    """A limit, in the words of a person: dollars for money, a count for the rest."""

    scope = forms.CharField(max_length=16)
    key = forms.CharField(max_length=160, required=False)
    unit = forms.CharField(max_length=8)
    limit = forms.CharField(max_length=24)
    window = forms.CharField(max_length=8)
    rolling = forms.BooleanField(required=False)
    timezone = forms.CharField(max_length=64)
    on_exceed = forms.CharField(max_length=16)

    def as_wanted(self) -> BudgetWanted:
        """Raises: Invalid naming the fields."""
        if not self.is_valid():
            problems = tuple(
                FieldProblem(name, str(errors[0]))
                for name, errors in self.errors.items()
            )
            named = "; ".join(f"{each.path}: {each.problem}" for each in problems)
            raise Invalid(named, fields=problems)
        said = self.cleaned_data
        return BudgetWanted(
            scope=said["scope"],
            key=said["key"],
            unit=said["unit"],
            limit=limit_of(said["limit"], said["unit"]),
            window=said["window"],
            is_rolling=said["rolling"],
            timezone=said["timezone"],
            on_exceed=said["on_exceed"],
        )


def limit_of(text: str, unit: str) -> int:
    """Read a limit: "$2.50" in dollars, exact to the micro-USD, or a count.

    Raises: Invalid.
    """
    try:
        said = Decimal(text.strip().removeprefix("$").replace(",", ""))
        amount = said * MICRO if unit == BudgetUnit.MICROS else said
        if amount.is_finite() and amount == amount.to_integral_value():
            return int(amount)
    except InvalidOperation:
        pass
    expected = "dollars like 2.50" if unit == BudgetUnit.MICROS else "a whole number"
    raise Invalid(
        f"The limit {text!r} is not {expected}.",
        fields=(FieldProblem("limit", f"{text!r} is no amount", expected),),
    )
