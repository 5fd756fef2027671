"""Who agents are and whom they serve: profiles, their versions, and pins."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.access.models import Principal, Workspace
from apps.agents import policies
from apps.agents.engine import lanes, routing
from apps.agents.engine.shipped import SHIPPED
from apps.agents.models import (
    VERSIONED_FIELDS,
    AgentProfile,
    PinScope,
    ProfilePin,
    ProfileVersion,
    as_body,
)
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.providers.models import Lane


@transaction.atomic
def save_profile(
    *,
    by: Principal,
    workspace: Workspace,
    slug: str,
    changes: Mapping[str, Any],
    expected_version: int,
) -> AgentProfile:
    """Make a profile (expected version 0) or its next version.

    Writes: AgentProfile, ProfileVersion; the old version stays.
    Raises: RoleRequired, Conflict when somebody was first, Invalid.
    Again: unchanged values make no version.
    """
    policies.check_may_shape(by, workspace)
    _check_names(changes)
    found = AgentProfile.objects.filter(workspace=workspace, slug=slug)
    profile = found.select_for_update().first()
    if (profile.version if profile else 0) != expected_version:
        raise Conflict(
            f"@{slug} is at version {profile.version if profile else 0}.",
            expected_version=expected_version,
        )
    before = as_body(profile) if profile else {}
    profile = profile or AgentProfile(workspace=workspace, slug=slug, version=0)
    for name, value in changes.items():
        setattr(profile, name, value)
    _validate(profile)
    body = as_body(profile)
    if body == before:
        return profile
    profile.version += 1
    profile.updated_at = clock.now()
    profile.save()
    ProfileVersion.objects.create(
        profile=profile, version=profile.version, body=body, by_label=by.label
    )
    changed = sorted(name for name in body if body[name] != before.get(name))
    _record_profile(profile, by, "profile.saved", {"changed": changed})
    return profile


@transaction.atomic
def pin(*, by: Principal, scope: str, key: str, profile: AgentProfile) -> ProfilePin:
    """Let a profile serve a session, a user, a workspace or everybody.

    Raises: Invalid, Denied.   Again: the newest pin of a scope and key counts.
    """
    key = _check_pin_key(scope, key)
    policies.check_may_pin(by, scope, key, profile.workspace)
    if not profile.is_active:
        raise Invalid(f"@{profile.slug} is inactive; nothing can be pinned to it.")
    row, _ = ProfilePin.objects.update_or_create(
        scope=scope,
        key=key,
        defaults={
            "profile": profile,
            "profile_slug": profile.slug,
            "by_label": by.label,
        },
    )
    _record_profile(profile, by, "profile.pinned", {"scope": scope, "key": key})
    return row


@transaction.atomic
def unpin(*, by: Principal, scope: str, key: str, workspace: Workspace) -> None:
    """Take a pin away. Raises: NotFound, Denied."""
    key = _check_pin_key(scope, key)
    policies.check_may_pin(by, scope, key, workspace)
    found = ProfilePin.objects.filter(scope=scope, key=key).first()
    if found is None:
        raise NotFound(f"Nothing is pinned for this {scope}.")
    found.delete()
    audit.record(
        type="profile.unpinned",
        actor=by.actor,
        subject=("pin", f"{scope}:{key}"),
        workspace_id=workspace.id,
        data={"scope": scope, "key": key, "slug": found.profile_slug},
    )


@transaction.atomic
def install_default_profiles(
    *, workspace: Workspace, by: Principal
) -> list[AgentProfile]:
    """Make the shipped profiles. Again: what exists is left as it is."""
    held = set(
        AgentProfile.objects.filter(workspace=workspace).values_list("slug", flat=True)
    )
    return [
        save_profile(
            by=by, workspace=workspace, slug=slug, changes=body, expected_version=0
        )
        for slug, body in SHIPPED.items()
        if slug not in held
    ]


def _check_names(changes: Mapping[str, Any]) -> None:
    known = {*VERSIONED_FIELDS, "pinned_model", "pinned_model_id"}
    unknown = sorted(set(changes) - known)
    if unknown:
        problems = (FieldProblem(name, "unknown") for name in unknown)
        raise Invalid("A profile has no such field.", fields=tuple(problems))


def _validate(profile: AgentProfile) -> None:
    problems = list(_shape_problems(profile))
    if problems:
        raise Invalid("This profile is not valid.", fields=tuple(problems))
    try:
        profile.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        fields = tuple(
            FieldProblem(name, " ".join(messages))
            for name, messages in error.message_dict.items()
        )
        raise Invalid("This profile is not valid.", fields=fields) from error


def _shape_problems(profile: AgentProfile) -> Iterator[FieldProblem]:
    for name in ("allowed_capabilities", "allowed_handoff_targets"):
        value = getattr(profile, name)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            yield FieldProblem(name, "wrong shape", "a list of names")
    value = profile.fallbacks
    if not isinstance(value, list) or not all(
        isinstance(each, dict) and each.get("provider") for each in value
    ):
        expected = '[{"provider": "…", "model": "…"}]'
        yield FieldProblem("fallbacks", "wrong shape", expected)
    for kind, lane in _lanes_said(profile):
        if kind not in lanes.KINDS:
            expected = ", ".join(lanes.KINDS)
            yield FieldProblem(f"lane_policy.{kind}", "unknown", expected)
        elif lane not in ("", *Lane.values):
            expected = ", ".join(Lane.values)
            yield FieldProblem(f"lane_policy.{kind}", "no lane", expected)
    yield from routing.problems(profile.routing)
    if profile.max_output_tokens * 2 > profile.context_window_tokens:
        expected = "at least twice max_output_tokens"
        yield FieldProblem("context_window_tokens", "too small", expected)


def _lanes_said(profile: AgentProfile) -> list[tuple[str, Any]]:
    said = profile.lane_policy
    return list(said.items()) if isinstance(said, dict) else [("", said)]


def _check_pin_key(scope: str, key: str) -> str:
    if scope not in PinScope.values:
        expected = ", ".join(PinScope.values)
        problem = FieldProblem("scope", "unknown", expected)
        raise Invalid("There is no such scope.", fields=(problem,))
    if scope == PinScope.GLOBAL:
        return ""
    try:
        return str(UUID(str(key)))
    except ValueError as error:
        problem = FieldProblem("key", "not an id", f"the id of a {scope}")
        raise Invalid("This pin needs an id.", fields=(problem,)) from error


def _record_profile(
    profile: AgentProfile, by: Principal, event: str, data: dict[str, Any]
) -> None:
    audit.record(
        type=event,
        actor=by.actor,
        subject=("profile", str(profile.id)),
        workspace_id=profile.workspace_id,
        data={"slug": profile.slug, "version": profile.version, **data},
    )
