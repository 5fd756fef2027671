"""The profile form of the admin: it carries the version that it was opened with."""

from typing import TYPE_CHECKING, Any

from django import forms

from apps.agents.models import VERSIONED_FIELDS, AgentProfile

if TYPE_CHECKING:
    _ProfileForm = forms.ModelForm[AgentProfile]
else:
    _ProfileForm = forms.ModelForm


class ProfileForm(_ProfileForm):
    """A save against an older version is refused instead of winning silently."""

    expected_version = forms.IntegerField(
        widget=forms.HiddenInput, required=False, min_value=0
    )

    class Meta:
        model = AgentProfile
        fields = ("workspace", "slug", *VERSIONED_FIELDS, "pinned_model")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        is_new = self.instance._state.adding
        self.fields["expected_version"].initial = 0 if is_new else self.instance.version
