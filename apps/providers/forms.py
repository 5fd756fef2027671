"""What the desk's forms ask for. A key is a write-only field."""

from typing import TYPE_CHECKING

from django import forms

from apps.common.errors import FieldProblem, Invalid
from apps.common.units import MICRO
from apps.providers.models import Model, Provider, Route
from apps.providers.ports import Tariff
from apps.providers.services import PriceEntry

if TYPE_CHECKING:
    _ProviderForm = forms.ModelForm[Provider]
    _ModelForm = forms.ModelForm[Model]
    _RouteForm = forms.ModelForm[Route]
else:
    _ProviderForm = _ModelForm = _RouteForm = forms.ModelForm


class ProviderForm(_ProviderForm):
    base_url = forms.CharField(
        required=False,
        max_length=300,
        help_text="Empty for the vendor's own. A server nearby: http://127.0.0.1:8080/v1",
    )
    key = forms.CharField(
        required=False,
        strip=True,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off"}),
        help_text="Stored sealed in the vault and never shown. Empty keeps the old.",
    )
    expected_revision = forms.IntegerField(
        required=False, min_value=1, widget=forms.HiddenInput
    )

    class Meta:
        model = Provider
        fields = ("slug", "kind", "base_url", "enabled", "settings")

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.initial["expected_revision"] = self.instance.revision
        for bound in self.visible_fields():
            if not isinstance(bound.field.widget, forms.CheckboxInput):
                bound.field.widget.attrs.setdefault("class", "input")


class ModelForm(_ModelForm):
    class Meta:
        model = Model
        fields = (
            "provider",
            "name",
            "context_window_tokens",
            "max_output_tokens",
            "input_micros",
            "output_micros",
            "cached_micros",
            "supports_tools",
            "dated",
        )


class PriceForm(forms.Form):
    """A model's price from a day on, in dollars per million tokens."""

    model = forms.CharField(max_length=120)
    starts_on = forms.DateField()
    input = forms.DecimalField(min_value=0, max_value=10**6, decimal_places=6)
    output = forms.DecimalField(min_value=0, max_value=10**6, decimal_places=6)
    cached = forms.DecimalField(min_value=0, max_value=10**6, decimal_places=6)
    note = forms.CharField(max_length=300, required=False)

    def as_entry(self) -> PriceEntry:
        """Raises: Invalid naming the fields."""
        if not self.is_valid():
            problems = tuple(
                FieldProblem(name, str(errors[0]))
                for name, errors in self.errors.items()
            )
            named = "; ".join(f"{each.path}: {each.problem}" for each in problems)
            raise Invalid(named, fields=problems)
        given = self.cleaned_data
        input_, output, cached = (
            int(given[name] * MICRO) for name in ("input", "output", "cached")
        )
        return PriceEntry(
            starts_on=given["starts_on"],
            tariff=Tariff(input_, output, cached),
            note=given["note"],
        )


class RouteForm(_RouteForm):
    class Meta:
        model = Route
        fields = ("lane", "model", "enabled")
