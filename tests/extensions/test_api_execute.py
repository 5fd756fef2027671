"""`executeExtension`: every code of the table, and the runbook word for word.

The five steps are those of the operators' runbook, "Troubleshoot `Invalid
extension.gateway.execute.request`".
"""

import json
from typing import Any

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import User
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Conversation
from apps.audit.models import Event
from apps.common.actor import SYSTEM
from apps.extensions import ports, services
from apps.extensions.models import Extension
from apps.gateway import services as gateway
from apps.gateway.models import Call
from apps.vault import services as vault

TRACE = "0123456789abcdef0123456789abcdef"
URL = "/api/v1/extensions/execute"


@pytest.fixture
def session(alice, workspace, plugin) -> Conversation:
    """Alice's conversation, served by a profile that may use everything here."""
    agents.install_default_profiles(by=access.system_principal(), workspace=workspace)
    allowed = ["polar/*", "orders/*", "invoices/*"]
    AgentProfile.objects.filter(slug="primary").update(allowed_capabilities=allowed)
    return Conversation.objects.create(workspace=workspace, principal=alice.principal)


@pytest.fixture
def payload(alice, session) -> dict[str, Any]:
    """The minimal known-good payload of the runbook."""
    return {
        "extensionId": "polar",
        "extensionType": "plugin",
        "capabilityId": "clock.now",
        "sessionId": str(session.id),
        "userId": str(alice.principal.id),
        "capabilityScope": {"allowed": {"polar": ["clock.now"]}},
        "input": {},
    }


@pytest.fixture
def execute(alice):
    token = issue(alice, "extensions:execute", "extensions:read", "audit:read")

    def send(body: Any, *, token: str = token) -> Any:
        text = body if isinstance(body, str) else json.dumps(body)
        return Client().post(
            URL,
            text,
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )

    send.token = token
    return send


def issue(user, *scopes: str) -> str:
    return access.issue_token(
        by=access.system_principal(),
        principal=user.principal,
        name="t",
        scopes=scopes,
        held=frozenset({"*"}),
    )[1]


def order(payload, **changes):
    return {
        **payload,
        "extensionId": "orders",
        "extensionType": "mcp",
        "capabilityId": "find",
        "capabilityScope": {"allowed": {"orders": ["*"]}},
        **changes,
    }


def code_of(response) -> str:
    return response.json()["error"]["code"]


def test_the_minimal_payload_completes(execute, payload):
    response = execute({**payload, "traceId": TRACE})

    body = response.json()
    assert (response.status_code, body["status"]) == (200, "completed")
    assert body["output"]["now"].endswith("(UTC)")
    assert (body["traceId"], body["trustLevel"]) == (TRACE, "trusted")
    assert Call.objects.get().trace_id == TRACE


def test_the_five_steps_of_the_runbook(execute, payload):
    # 1. Confirm required request fields match runtime schema:
    #    `extensionId`, `extensionType`, `capabilityId`, `sessionId`, `userId`,
    #    `capabilityScope`, `input`
    refused = execute({"traceId": TRACE})
    paths = [each["path"] for each in refused.json()["error"]["details"]]
    assert paths == [
        "$.extensionId",
        "$.extensionType",
        "$.capabilityId",
        "$.sessionId",
        "$.userId",
        "$.capabilityScope",
        "$.input",
    ]
    # 2. Confirm `capabilityScope` is non-empty and shaped as:
    #    `{ "allowed": { "<extensionId>": ["<capabilityId>"] } }`
    empty = execute({**payload, "capabilityScope": {"allowed": {}}})
    (problem,) = empty.json()["error"]["details"]
    assert problem["path"] == "$.capabilityScope.allowed"
    # 3. Re-run with minimal known-good payload through control-plane
    #    `executeExtension`.
    again = execute({**refused.json()["minimalPayload"], "traceId": TRACE})
    assert again.json()["status"] == "completed"
    # 4. If still failing, inspect:
    #    - middleware contract validation errors (`POLAR_CONTRACT_VALIDATION_ERROR`)
    assert code_of(refused) == "POLAR_CONTRACT_VALIDATION_ERROR"
    #    - extension policy denials (`POLAR_EXTENSION_POLICY_DENIED`)
    scope = {"allowed": {"polar": ["calculator.evaluate"]}}
    denied = execute({**payload, "capabilityScope": scope, "traceId": TRACE})
    assert code_of(denied) == "POLAR_EXTENSION_POLICY_DENIED"
    #    - extension state (`listExtensionStates`) for lifecycle/trust mismatches
    header = {"Authorization": f"Bearer {execute.token}"}
    states = Client().get("/api/v1/extensions", headers=header).json()["items"]
    (polar,) = [each for each in states if each["extensionId"] == "polar"]
    assert (polar["lifecycle"], polar["trustLevel"]) == ("enabled", "trusted")
    # 5. Capture trace and audit evidence:
    #    - include `traceId` in request
    #    - pull middleware audit events and extension execution response payload for
    #      incident ticket
    events = Event.objects.filter(trace_id=TRACE).order_by("id")
    assert [event.type for event in events] == [
        "extension.execution_refused",
        "call.settled",
        "extension.execution_refused",
    ]
    assert {refused.json()["traceId"], again.json()["traceId"]} == {TRACE}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"input": []}, "$.input"),
        ({"extensionType": "tool"}, "$.extensionType"),
        ({"capabilityScope": {"allowed": {"polar": []}}}, "$.capabilityScope.allowed"),
        ({"capabilityScope": {}}, "$.capabilityScope"),
        ({"traceId": "xyz"}, "$.traceId"),
        ({"approved": True}, "$"),
        ({"approvalId": "1"}, "$"),
        ({"capabilityScope": {"allowed": {"polar": ["*"]}, "approved": 1}}, "$.cap"),
        ({"input": {"timezone": 5}}, "$.timezone"),
    ],
)
def test_contract_names_the_field(execute, payload, changes, path):
    response = execute({**payload, **changes})

    problem = response.json()["error"]["details"][0]
    assert (response.status_code, code_of(response)) == (
        422,
        "POLAR_CONTRACT_VALIDATION_ERROR",
    )
    assert problem["path"].startswith(path)
    assert problem["expected"]
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_no_token_is_401_before_the_body_is_read(payload, db):
    response = Client().post(URL, "{not json", content_type="application/json")

    assert (response.status_code, response.json()["code"]) == (
        401,
        "POLAR_UNAUTHENTICATED",
    )


def test_token_without_the_scope_is_403_before_the_body_is_read(execute, alice):
    response = execute("{not json", token=issue(alice, "runs:read"))

    assert (response.status_code, response.json()["code"]) == (403, "POLAR_FORBIDDEN")


def test_body_that_is_no_json_names_itself(execute, payload):
    response = execute("{not json")

    assert response.json()["code"] == "POLAR_CONTRACT_VALIDATION_ERROR"


def test_not_installed(execute, payload):
    response = execute({**payload, "extensionId": "nothing"})

    assert (response.status_code, code_of(response)) == (
        404,
        "POLAR_EXTENSION_NOT_INSTALLED",
    )
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_type_mismatch(execute, payload):
    response = execute({**payload, "extensionType": "mcp"})

    assert (response.status_code, code_of(response)) == (
        409,
        "POLAR_EXTENSION_TYPE_MISMATCH",
    )
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_trust_mismatch(execute, payload):
    response = execute({**payload, "trustLevel": "reviewed"})

    assert (response.status_code, code_of(response)) == (
        409,
        "POLAR_EXTENSION_TRUST_LEVEL_MISMATCH",
    )
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_blocked_names_who_and_why(execute, payload, orders, alice):
    services.revoke_extension(
        by=alice.principal, extension_id=orders.id, reason="loops"
    )

    response = execute(order(payload))

    assert (response.status_code, code_of(response)) == (403, "POLAR_EXTENSION_BLOCKED")
    assert "alice blocked orders" in response.json()["error"]["message"]
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_not_enabled(execute, payload, orders, alice):
    services.disable_extension(by=alice.principal, extension_id=orders.id, reason="x")

    response = execute(order(payload))

    assert code_of(response) == "POLAR_EXTENSION_NOT_ENABLED"
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_policy_denied_for_unknown_risk(execute, payload, orders):
    orders.capabilities.filter(capability_id="find").update(risk_level="unknown")

    response = execute(order(payload))
    error = response.json()["error"]

    assert (error["code"], error["reasonCode"]) == (
        "POLAR_EXTENSION_POLICY_DENIED",
        "risk_unknown",
    )
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_policy_denied_under_a_halt(execute, payload, alice):
    gateway.halt(by=alice.principal, scope="extension:polar", reason="stop")

    error = execute(payload).json()["error"]

    assert (error["code"], error["reasonCode"]) == (
        "POLAR_EXTENSION_POLICY_DENIED",
        "halted",
    )


@pytest.mark.parametrize(
    ("constraints", "given"),
    [
        ({"domainsAllowlist": ["example.org"]}, {"id": "https://evil.example/x"}),
        ({"domainsAllowlist": []}, {"id": "//evil.example"}),
        ({"domainsAllowlist": ["example.org"]}, {"id": "https://example.org@evil.io"}),
        ({"domainsAllowlist": ["example.org"]}, {"id": "https://example.org.evil.io"}),
        ({"pathsAllowlist": ["/srv/data"]}, {"id": "/etc/passwd"}),
        ({"pathsAllowlist": ["/srv/data"]}, {"id": "/srv/data/../../etc/passwd"}),
        ({"pathsAllowlist": ["/srv/data"]}, {"id": "/srv/data/%2e%2e/%2e%2e/etc"}),
        ({"pathsAllowlist": ["/srv/data"]}, {"id": "~/x"}),
        ({"pathsAllowlist": ["/srv/data"]}, {"id": "file:///etc/passwd"}),
        ({"pathsAllowlist": ["/srv/data"]}, {"id": "/srv/database"}),
        ({"maxTargets": 0}, {"id": "1"}),
    ],
)
def test_constraints_are_enforced(execute, payload, orders, constraints, given):
    scope = {"allowed": {"orders": ["*"]}, "constraints": {"orders": constraints}}

    response = execute(order(payload, capabilityScope=scope, input=given))

    error = response.json()["error"]
    assert (response.status_code, error["reasonCode"]) == (403, "constraint_violated")
    assert Call.objects.get(kind="tool").stage == "constraint"
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_constraints_let_pass_what_they_cover(execute, payload, orders, runtime):
    rules = {"domainsAllowlist": ["*.example.org"], "pathsAllowlist": ["/srv"]}
    scope = {"allowed": {"orders": ["*"]}, "constraints": {"orders": rules}}

    response = execute(
        order(payload, capabilityScope=scope, input={"id": "https://a.example.org/x"})
    )

    assert response.json()["status"] == "completed"
    assert runtime.targets[0].constraints == rules


def test_rate_per_minute_is_429_with_retry_after(execute, payload):
    rules = {"polar": {"ratePerMinute": 1}}
    scope = {"allowed": {"polar": ["*"]}, "constraints": rules}
    assert execute({**payload, "capabilityScope": scope}).status_code == 200

    response = execute({**payload, "capabilityScope": scope})

    assert (response.status_code, code_of(response)) == (429, "POLAR_RATE_LIMITED")
    assert int(response["Retry-After"]) > 0
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_profile_narrows_what_the_caller_asks_for(execute, payload):
    AgentProfile.objects.update(allowed_capabilities=["polar/calculator.evaluate"])

    response = execute(payload)
    error = response.json()["error"]

    assert error["reasonCode"] == "scope_capability_denied"
    assert error["facts"]["narrowed_by"] == "profile"
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_destructive_asks_a_person(execute, payload, orders):
    response = execute(order(payload, capabilityId="cancel"))

    assert (response.status_code, response.json()["status"]) == (
        202,
        "approval_required",
    )
    assert response.json()["approvalId"]


def test_another_persons_session_is_forbidden_and_audited(execute, payload, bob):
    mine = Conversation.objects.get()
    Conversation.objects.filter(id=mine.id).update(principal=bob.principal)

    response = execute({**payload, "userId": str(bob.principal.id)})

    assert (response.status_code, code_of(response)) == (403, "POLAR_FORBIDDEN")
    assert Event.objects.filter(type="extension.execution_refused").count() == 1


def test_act_as_covers_a_session_of_its_workspace(execute, payload, bob):
    token = issue(bob, "extensions:execute", "act_as:default")

    assert execute(payload, token=token).json()["status"] == "completed"
    assert Call.objects.get().principal.label == "alice"


def test_same_key_replays(execute, payload):
    first = execute({**payload, "idempotencyKey": "k1"}).json()

    again = execute({**payload, "idempotencyKey": "k1"}).json()

    assert (again["replayed"], again["output"]) == (True, first["output"])


def test_adapter_missing(execute, payload, orders, monkeypatch):
    real = ports.find_runtime
    monkeypatch.setattr(
        ports, "find_runtime", lambda each: None if each == "stdio" else real(each)
    )

    response = execute(order(payload))

    assert (response.status_code, code_of(response)) == (
        502,
        "POLAR_EXTENSION_ADAPTER_MISSING",
    )
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_broken_output_is_a_runtime_error(execute, payload, orders):
    schema = {"type": "object", "required": ["total"]}
    orders.capabilities.filter(capability_id="find").update(output_schema=schema)

    response = execute(order(payload))

    assert (response.status_code, code_of(response)) == (
        502,
        "POLAR_RUNTIME_EXECUTION_ERROR",
    )
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def put(user: User, path: str, token_scope: str, /, **body: Any) -> Any:
    """Make one change over the API, as somebody who may."""
    answer = Client(
        headers={"Authorization": f"Bearer {issue(user, token_scope)}"}
    ).post(f"/api/v1/{path}", body, "application/json")
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_a_budget_of_nothing_is_402_and_says_what_would_change_it(
    execute, payload, bob
):
    nothing = {"scope": "workspace", "unit": "calls", "limit": 0, "window": "day"}
    budget = put(bob, "budgets", "budgets:write", **nothing)

    response = execute(payload)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (402, "POLAR_BUDGET_EXCEEDED")
    assert "The workspace budget allows 0 calls" in error["message"]
    assert (error["facts"]["limit"], error["facts"]["spent"]) == (0, 0)
    assert error["facts"]["resets_at"]
    assert Call.objects.get(kind="tool").stage == "budget"
    raised = {**nothing, "limit": 1, "budgetId": budget["id"]}
    put(bob, "budgets", "budgets:write", expectedVersion=budget["version"], **raised)
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


def test_a_sealed_vault_is_503_and_what_needs_no_secret_runs(
    execute, payload, orders, ada, runtime
):
    vault.store_secret(by=SYSTEM, name="orders/token", value="canary")
    grants = {"secrets": {"Authorization": "orders/token"}}
    Extension.objects.filter(id=orders.id).update(trust="trusted", grants=grants)
    put(ada, "vault/seal", "vault:write", reason="the key may have leaked")

    response = execute(order(payload))

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (503, "POLAR_VAULT_SEALED")
    assert "sealed_by_operator" in error["message"]
    assert (Call.objects.get(kind="tool").stage, runtime.targets) == ("credential", [])
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"
    put(ada, "vault/unseal", "vault:write", reason="it has not")
    assert execute(order(payload)).json()["status"] == "completed"


def test_a_changed_server_is_blocked_and_quarantined(execute, payload, orders, runtime):
    runtime.change("find", description="else")

    response = execute(order(payload))
    error = response.json()["error"]

    assert (error["code"], error["reasonCode"]) == (
        "POLAR_EXTENSION_BLOCKED",
        "definition_changed",
    )
    assert Extension.objects.get(id=orders.id).trust == "blocked"
    assert execute(response.json()["minimalPayload"]).json()["status"] == "completed"


@pytest.mark.parametrize(
    "text",
    [
        '{"input": {"timezone": "a\\ud800"}}',
        '{"idempotencyKey": "\\udfff"}',
        '{"\\ud800": 1}',
        "[" * 100_000,
        '{"input": ' + '{"a":' * 500 + "1" + "}" * 501,
        b"\xff\xfe".decode("latin-1"),
    ],
)
def test_body_that_nobody_can_keep_is_refused(execute, payload, text):
    response = execute(text)

    assert response.status_code == 422
    assert not Call.objects.exists()
