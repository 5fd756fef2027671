"""Forms of profiles and pins: each carries the version that it was opened with."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms

from apps.agents.engine import lanes, routing
from apps.agents.models import (
    SLUG,
    VERSIONED_FIELDS,
    AgentProfile,
    PinScope,
    SafetyMode,
)
from apps.common.errors import FieldProblem, Invalid
from apps.common.units import MICRO
from apps.providers import queries as providers
from apps.providers.models import Lane

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


#: What a kind of work may say beside a lane: the shipped word, or the own lane.
SHIPPED, OWN = "shipped", "own"
THRESHOLDS = ("clarifyBelow", "planAbove", "askAbove")
LIMITS = (
    "max_turns",
    "max_tool_calls",
    "max_depth",
    "context_window_tokens",
    "max_output_tokens",
)


class DeskForm(forms.Form):
    """A profile in the words of a person. A list has one entry a line."""

    version = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    title = forms.CharField(max_length=120)
    description = forms.CharField(required=False, max_length=1000)
    system_prompt = forms.CharField(required=False, max_length=40_000, strip=False)
    lane = forms.ChoiceField(choices=Lane.choices)
    pinned_model = forms.ChoiceField(required=False)
    fallbacks = forms.CharField(required=False, max_length=2000)
    allowed_capabilities = forms.CharField(required=False, max_length=8000)
    allowed_handoff_targets = forms.MultipleChoiceField(required=False)
    turn_budget = forms.DecimalField(
        required=False, min_value=0, max_value=10**6, decimal_places=6
    )
    safety_mode = forms.ChoiceField(choices=SafetyMode.choices)
    explicit = forms.BooleanField(required=False)
    is_active = forms.BooleanField(required=False)

    def __init__(self, profile: AgentProfile, data: Any = None) -> None:
        super().__init__(data, initial=_typed(profile))
        models = {r.model_id: str(r.model) for r in providers.plan_routes()}
        pinned = profile.pinned_model
        if pinned is not None:
            models.setdefault(pinned.pk, f"{pinned}, which has no route")
        chosen = sorted(((str(k), v) for k, v in models.items()), key=lambda c: c[1])
        self._choices("pinned_model", [("", "none: the lane decides"), *chosen])
        named = AgentProfile.objects.active().filter(workspace=profile.workspace)
        slugs = {*named.values_list("slug", flat=True)} - {profile.slug}
        slugs |= {str(each) for each in profile.allowed_handoff_targets}
        targets = [(slug, f"@{slug}") for slug in sorted(slugs)]
        self._choices("allowed_handoff_targets", targets)
        for name in LIMITS:
            self.fields[name] = forms.IntegerField(min_value=0, max_value=10**8)
        for name in THRESHOLDS:
            self.fields[name] = forms.IntegerField(min_value=0, max_value=10_000)
        for name in routing.WEIGHTS:
            self.fields[f"weight_{name}"] = forms.IntegerField(
                min_value=0, max_value=10_000
            )
        for kind in lanes.KINDS:
            self.fields[f"lane_{kind}"] = forms.ChoiceField(choices=_lanes_for(kind))

    def _choices(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def group(self, *names: str) -> list[forms.BoundField]:
        return [self[name] for name in names]

    @property
    def limits(self) -> list[forms.BoundField]:
        return self.group(*LIMITS)

    @property
    def thresholds(self) -> list[forms.BoundField]:
        return self.group(*THRESHOLDS)

    @property
    def weights(self) -> list[forms.BoundField]:
        return self.group(*(f"weight_{name}" for name in routing.WEIGHTS))

    @property
    def work(self) -> list[forms.BoundField]:
        return self.group(*(f"lane_{kind}" for kind in lanes.KINDS))

    def as_changes(self) -> dict[str, Any]:
        """Return what `save_profile` takes. Raises: Invalid naming the fields."""
        if not self.is_valid():
            problems = tuple(
                FieldProblem(name, str(errors[0]))
                for name, errors in self.errors.items()
            )
            named = "; ".join(f"{each.path}: {each.problem}" for each in problems)
            raise Invalid(named, fields=problems)
        given = self.cleaned_data
        plain = ("title", "description", "system_prompt", "lane", "safety_mode")
        share: Decimal | None = given["turn_budget"]
        return {name: given[name] for name in (*plain, "is_active", *LIMITS)} | {
            "pinned_model_id": given["pinned_model"] or None,
            "fallbacks": [_fallback(line) for line in _lines(given["fallbacks"])],
            "allowed_capabilities": _lines(given["allowed_capabilities"]),
            "allowed_handoff_targets": given["allowed_handoff_targets"],
            "turn_budget_micros": None if share is None else int(share * MICRO),
            "lane_policy": self._lane_policy(),
            "routing": self._routing(),
        }

    def _lane_policy(self) -> dict[str, str]:
        said = {kind: self.cleaned_data[f"lane_{kind}"] for kind in lanes.KINDS}
        return {
            kind: "" if word == OWN else word
            for kind, word in said.items()
            if word != SHIPPED
        }

    def _routing(self) -> dict[str, Any]:
        """Keep only what differs from what is shipped."""
        given = self.cleaned_data
        said = {name: given[name] for name in ("explicit", *THRESHOLDS)}
        weights = {name: given[f"weight_{name}"] for name in routing.WEIGHTS}
        own = {k: v for k, v in weights.items() if v != routing.WEIGHTS[k]}
        kept = {k: v for k, v in said.items() if v != routing.DEFAULTS[k]}
        return kept | ({"weights": own} if own else {})


class NewProfileForm(forms.Form):
    """The name of an agent that is still to be described."""

    slug = forms.CharField(validators=[SLUG])


class PinForm(forms.Form):
    """Which agent serves whom."""

    scope = forms.ChoiceField(choices=PinScope.choices)
    key = forms.CharField(required=False, max_length=64)
    agent = forms.CharField(max_length=33)


def _typed(profile: AgentProfile) -> dict[str, Any]:
    """Write a profile as a person would type it."""
    settings = routing.settings_of(profile)
    share = profile.turn_budget_micros
    plain = ("title", "description", "system_prompt", "lane", "safety_mode")
    words = {name: getattr(profile, name) for name in (*plain, "is_active", *LIMITS)}
    return words | {
        "version": profile.version,
        "pinned_model": str(profile.pinned_model_id or ""),
        "fallbacks": "\n".join(
            f"{each['provider']}/{each.get('model') or ''}".rstrip("/")
            for each in profile.fallbacks
        ),
        "allowed_capabilities": "\n".join(profile.allowed_capabilities),
        "allowed_handoff_targets": profile.allowed_handoff_targets,
        "turn_budget": "" if share is None else Decimal(share) / MICRO,
        "explicit": settings.explicit,
        "clarifyBelow": settings.clarify_below,
        "planAbove": settings.plan_above,
        "askAbove": settings.ask_above,
        **{f"weight_{name}": value for name, value in settings.weights.items()},
        **{
            f"lane_{kind}": profile.lane_policy.get(kind, SHIPPED) or OWN
            for kind in lanes.KINDS
        },
    }


def _lanes_for(kind: str) -> list[tuple[str, str]]:
    shipped = lanes.DEFAULTS.get(kind)
    own = "not raised" if kind in (lanes.HARD, lanes.STUCK) else "the agent's own"
    named = [(str(lane), str(lane)) for lane in Lane]
    return [(SHIPPED, f"as shipped: {shipped or own}"), (OWN, own), *named]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _fallback(line: str) -> dict[str, str]:
    provider, _, model = line.partition("/")
    return {"provider": provider.strip(), "model": model.strip()}
