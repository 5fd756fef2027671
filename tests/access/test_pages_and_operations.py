"""Whatever a page changes, an operation of the API changes too, or it says why not."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from polar_site.api import api

#: Pages' forms → the operations that do the same, through the same services.
OPERATIONS = {
    "access:add_token": "createToken",
    "access:add_user": "createUser",
    "access:change_user": "updateUser",
    "access:limit_token": "limitToken",
    "access:policy": "setAccessPolicy",
    "access:revoke_token": "revokeToken",
    "agents:edit": "saveProfile",
    "agents:memory_change": "correctMemory deleteMemory",
    "agents:new": "saveProfile",
    "agents:pin_change": "pinProfileForScope unpinProfileForScope",
    "agents:switch_lane": "saveProfile",
    "audit:verify": "verifyAudit",
    "boards:change_board": "updateBoard",
    "boards:comment": "commentOnTask",
    "boards:edit_task": "upsertTask",
    "boards:move": "transitionTask",
    "boards:new_board": "createBoard",
    "boards:new_task": "upsertTask",
    "boards:revalidate": "revalidateTask",
    "boards:start": "startTask",
    "channels:act": (
        "saveChannelBot updateChannelAccount setChannelState decidePairing"
        " refusePairing updateChannelIdentity resendMessage"
    ),
    "channels:send": "orchestrate",
    "channels:start": "orchestrate",
    "extensions:connect": "connectExtension",
    "extensions:disconnect": "disconnectExtension",
    "extensions:install_do": "installPlugin installSkill syncMcpServer",
    "extensions:lifecycle": "applyExtensionLifecycle",
    "extensions:review": "reviewExtension",
    "extensions:sync": "syncMcpServer",
    "gateway:budget": "upsertBudget unblockBudget",
    "gateway:budget_new": "upsertBudget",
    "gateway:decide": "decideApproval",
    "gateway:decide_many": "decideApproval",
    "gateway:end_budget": "archiveBudget",
    "gateway:make_grant": "createGrant",
    "gateway:resume": "resume",
    "gateway:revoke_grant": "revokeGrant",
    "gateway:set_halt": "halt",
    "providers:change": "saveProvider removeProvider saveRoute",
    "providers:key": "changeProviderKey",
    "providers:price": "addPrice",
    "providers:route": "saveRoute",
    "providers:test": "testProvider",
    "reliability:accept_rollback": "acceptStore",
    "reliability:acknowledge_alert": "acknowledgeAlert",
    "reliability:cancel_drill": "cancelDrill",
    "reliability:change_incident": "transitionIncident reviewIncident",
    "reliability:create_snapshot": "createSnapshot",
    "reliability:import_config": "importConfig",
    "reliability:live_drill": "startDrill",
    "reliability:make_breach": "makeBreach",
    "reliability:open_incident": "openIncident",
    "reliability:rehearse_restore": "rehearseRestore",
    "reliability:resume_stale": "resumeStale",
    "reliability:run_step": "runIncidentStep",
    "reliability:silence_alert": "silenceAlert liftSilence",
    "reliability:start_drill": "startDrill",
    "runs:replay": "replayRun",
    "runs:act": "actOnDeadLetter",
    "runs:act_on_matching": "actOnDeadLetters",
    "runs:cancel": "cancelRun",
    "runs:edit_schedule": "updateAutomation",
    "runs:new_schedule": "createAutomation",
    "runs:proposal": "decideAutomationProposal dryRunAutomation",
    "runs:settle_effect": "settleEffect",
    "runs:steer_schedule": "runAutomationNow setAutomationState tryAutomation",
    "vault:act": (
        "rotateVault finishVaultRotation reencryptVault sealVault unsealVault"
        " recover acceptVaultLoss reenterSecret forgetSecret verifyBackup dropKit"
        " storeSecret testVaultChecklist previewVaultRotation"
    ),
    "vault:make_kit": "makeKit",
}
#: What only a browser has: how a person proves who they are, and what they look at.
APART = {
    "access:end": "a session is a browser's; a token ends by revokeToken",
    "access:factor": "a second factor is shown to its owner's eyes only",
    "access:password": "one's own, proved by the old one; others': updateUser",
    "access:zone": "how a browser's pages write times; the API keeps to UTC",
    "audit:export": "a bundle is a file; ./polar audit export takes any range",
    "access:remove_factor": "one's own, proved by a code; others': updateUser",
    "access:second_factor": "signing in",
    "access:set_up_factor": "signing in",
    "channels:hook": "a vendor's door, signed by the vendor",
    "reliability:hide_tour": "what one person sees of the home page",
}


def forms() -> set[str]:
    """Return the name of each address of the desk that takes a form."""
    return {
        name
        for name, view in _named(get_resolver().url_patterns)
        if not name.startswith(("admin:", "api")) and "POST" in methods(view)
    }


def _named(
    patterns: list[URLPattern | URLResolver], before: str = ""
) -> Iterator[tuple[str, Callable[..., Any]]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            space = f"{pattern.namespace}:" if pattern.namespace else ""
            yield from _named(pattern.url_patterns, before + space)
        elif pattern.name:
            yield before + pattern.name, pattern.callback


def methods(view: Any) -> list[str]:
    """Return what `require_http_methods` lets through, wherever it wraps."""
    while inspect.isfunction(view):
        found = inspect.getclosurevars(view).nonlocals.get("request_method_list")
        if found:
            return list(found)
        view = getattr(view, "__wrapped__", None)
    return []


def test_every_form_has_its_operation_or_its_reason() -> None:
    assert forms() == OPERATIONS.keys() | APART.keys()
    assert not OPERATIONS.keys() & APART.keys()


def test_the_operations_of_each_form_exist() -> None:
    paths = dict(api.get_openapi_schema())["paths"]
    known = {each["operationId"] for path in paths.values() for each in path.values()}

    assert set(" ".join(OPERATIONS.values()).split()) - known == set()
