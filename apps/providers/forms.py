"""What the desk's forms ask for. A key is a write-only field."""

from typing import TYPE_CHECKING

from django import forms

from apps.providers.models import Model, Provider, Route

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


class RouteForm(_RouteForm):
    class Meta:
        model = Route
        fields = ("lane", "model", "enabled")
