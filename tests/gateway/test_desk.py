"""Approving, granting, explaining and trying out: pages, API and their rules."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from django.urls import reverse

from apps.access import services as access
from apps.common import clock, ids
from apps.common.errors import ApprovalRequired, BudgetExceeded, Invalid, PolarError
from apps.gateway import services
from apps.gateway.models import (
    ApprovalRequest,
    ApprovalState,
    Budget,
    Call,
    Grant,
    Halt,
)
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    Estimate,
    Lineage,
    Permit,
    Result,
    Risk,
    Usage,
)

pytestmark = pytest.mark.django_db

EXTERNAL = Risk("write", side_effects="external")
TRACE = "ab" * 16


def mail(principal, workspace, to="ann@example.org", **changes) -> CallRequest:
    run_id, arguments = ids.new_id(), {"to": [to], "text": "<script>hi</script>"}

    def perform(permit: Permit) -> Result:
        permit.spend(arguments)
        return Result({"ok": True}, Usage(micros=40))

    base = CallRequest(
        kind=CallKind.TOOL,
        capability="mail/send",
        principal=principal,
        workspace_id=workspace.id,
        arguments=arguments,
        perform=perform,
        risk=EXTERNAL,
        lineage=Lineage(run_id=run_id, root_id=run_id, agent="w", trace_id=TRACE),
        scope={"allowed": {"mail": ["send"]}},
        estimate=Estimate(micros=50),
    )
    return replace(base, **changes)


def ask(request: CallRequest) -> ApprovalRequest:
    with pytest.raises(ApprovalRequired) as caught:
        services.call(request)
    return ApprovalRequest.objects.get(id=caught.value.facts["approval_id"])


def refused(request: CallRequest) -> Call:
    with pytest.raises(PolarError) as caught:
        services.call(request)
    return Call.objects.get(id=caught.value.facts["call_id"])


@pytest.fixture
def desk(client, bob):
    client.force_login(bob)
    return client


def page(client, name, *args, **params) -> str:
    found = client.get(reverse(f"gateway:{name}", args=args), params)
    assert found.status_code == 200
    return found.content.decode()


def test_question_shows_exact_arguments_and_nothing_runs(desk, rob, workspace):
    ask(mail(rob, workspace))

    html = page(desk, "approvals")

    assert "ann@example.org" in html and "&lt;script&gt;hi" in html
    assert "<script>hi" not in html and "it writes outside" in html


def test_alike_questions_are_decided_together_and_each_once(desk, rob, workspace):
    asked = [ask(mail(rob, workspace, f"{n}@example.org")) for n in range(3)]
    assert "3 alike" in page(desk, "approvals")
    late = ask(mail(rob, workspace, "late@example.org"))

    desk.post(
        reverse("gateway:decide_many"),
        {"approval": [each.id for each in asked], "answer": "approve"},
    )

    states = ApprovalRequest.objects.filter(id__in=[each.id for each in asked])
    late.refresh_from_db()
    assert set(states.values_list("state", flat=True)) == {ApprovalState.APPROVED}
    assert late.state == ApprovalState.PENDING


def test_grant_is_suggested_after_three_alike(desk, rob, workspace, bob):
    for number in range(3):
        asked = ask(mail(rob, workspace, f"{number}@example.org"))
        services.decide_approval(by=bob.principal, approval_id=asked.id, approve=True)
    ask(mail(rob, workspace))

    assert "approved 3 times this week" in page(desk, "approvals")


def test_page_of_questions_asks_few_queries(
    desk, rob, workspace, django_assert_max_num_queries
):
    for number in range(12):
        ask(mail(rob, workspace, f"{number}@example.org"))

    with django_assert_max_num_queries(30):
        page(desk, "approvals")


def test_decided_in_the_conversation_in_place(desk, rob, workspace):
    request = mail(rob, workspace)
    asked = ask(request)
    of_run = reverse("gateway:run_questions", args=[request.lineage.run_id])

    card = desk.get(of_run).content.decode()
    answered = desk.post(
        reverse("gateway:decide", args=[asked.id]),
        {"answer": "approve"},
        headers={"HX-Request": "true"},
    ).content.decode()

    assert f'id="approval-{asked.id}"' in card
    assert "Approved once." in answered
    assert desk.get(of_run).status_code == 204


def test_conversation_card_stays_while_nothing_changes(desk, rob, workspace):
    request = mail(rob, workspace)
    ask(request)
    of_run = reverse("gateway:run_questions", args=[request.lineage.run_id])
    first = desk.get(of_run).content.decode()
    seen = first.split("?seen=")[1][:12]

    assert desk.get(of_run, {"seen": seen}).status_code == 204


def test_payload_hidden_behind_length_is_decided_only_where_all_is_shown(
    desk, rob, workspace
):
    text = "a" * 9000 + "HIDDEN"
    asked = ask(mail(rob, workspace, to=text))

    listed, alone = page(desk, "approvals"), page(desk, "approval", asked.id)

    assert "Approve once" not in listed and "HIDDEN" not in listed.split("Exact")[1]
    assert "Approve once" in alone and "HIDDEN" in alone


def test_who_may_not_decide_sees_why_and_no_button(client, alice, rob, workspace):
    ask(mail(rob, workspace))
    client.force_login(alice)

    html = page(client, "approvals")

    assert "needs the role approver" in html and "Approve once" not in html


def test_outsider_sees_no_question(client, charlie, rob, workspace):
    asked = ask(mail(rob, workspace))
    client.force_login(charlie)

    assert "ann@example.org" not in page(client, "approvals")
    gone = client.get(reverse("gateway:approval", args=[asked.id]))
    assert gone.status_code == 404


@pytest.mark.parametrize("answer", ["approve", "reject", "grant"])
def test_answers_of_the_page_are_kept_and_shown(desk, rob, workspace, answer):
    asked = ask(mail(rob, workspace))

    desk.post(
        reverse("gateway:decide", args=[asked.id]),
        {"answer": answer, "reason": "because", "hours": "8"},
    )

    html = page(desk, "decided")
    assert "bob" in html and "because" in html
    assert Grant.objects.exists() is (answer == "grant")


def test_shipped_grants_are_shown_and_revocable(desk, workspace):
    services.install_shipped_grants(by=access.system_principal())
    grant = Grant.objects.get(kind=CallKind.MODEL)
    assert "model calls to configured providers" in page(desk, "grants")

    desk.post(reverse("gateway:revoke_grant", args=[grant.id]))

    services.install_shipped_grants(by=access.system_principal())
    grant.refresh_from_db()
    assert grant.revoked_at is not None
    assert Grant.objects.filter(kind=CallKind.MODEL).count() == 1


def test_grant_made_on_the_page_covers_its_targets(desk, rob, workspace):
    desk.post(
        reverse("gateway:make_grant"),
        {
            "kind": "tool",
            "capabilities": "mail/send",
            "agents": "@w",
            "targets": "*@example.org",
            "hours": "2",
            "reason": "newsletter",
        },
    )

    services.call(mail(rob, workspace))
    ask(mail(rob, workspace, "eve@evil.test"))


def test_grant_without_reason_is_refused_and_says_so(desk):
    said = desk.post(
        reverse("gateway:make_grant"),
        {"kind": "tool", "capabilities": "*", "hours": "2", "reason": " "},
        follow=True,
    )

    assert "Not granted" in said.content.decode()
    assert not Grant.objects.exists()


def stop_by(stage, request, workspace):
    if stage == "halt":
        Halt.objects.create(scope="agent:w", reason="odd answers", set_by="alice")
    elif stage == "contract":
        schema = {"type": "object", "properties": {"word": {"type": "string"}}}
        return replace(request, input_schema=schema)
    elif stage == "capability":
        return replace(request, scope={"allowed": {"mail": ["read"]}})
    elif stage == "loop_guard":
        return replace(request, lineage=replace(request.lineage, depth=9))
    elif stage == "budget":
        Budget.objects.create(
            workspace=workspace, scope="workspace", unit="micros", window="day", limit=1
        )
    return request


@pytest.mark.parametrize(
    ("stage", "allows"),
    [
        ("halt", "lifted by an operator"),
        ("contract", "match the contract"),
        ("capability", "&quot;mail&quot;: [&quot;send&quot;]"),
        ("loop_guard", "shallower"),
        ("budget", "higher limit"),
        ("approval", "answer; or, for what may be granted, a grant"),
    ],
)
def test_explain_names_stage_rule_and_what_would_allow(
    desk, rob, workspace, stage, allows
):
    call = refused(stop_by(stage, mail(rob, workspace), workspace))

    html = page(desk, "explain", TRACE)

    assert f"<b>{stage}</b>" in html and allows in html
    assert call.error_detail.split('"')[0][:40] in html.replace("&#x27;", "'")


def test_explain_shows_nothing_of_another_workspace(client, charlie, rob, workspace):
    refused(mail(rob, workspace))
    client.force_login(charlie)

    assert "mail/send" not in page(client, "explain", TRACE)


def test_explain_finds_a_typed_trace(desk):
    found = desk.get(reverse("gateway:find_explanation"), {"trace": TRACE.upper()})

    assert found.url == reverse("gateway:explain", args=[TRACE])


def test_api_explains(desk, rob, workspace):
    refused(mail(rob, workspace, scope={"allowed": {"mail": ["read"]}}))

    (said,) = desk.get(f"/api/v1/traces/{TRACE}/explain").json()

    assert (said["stage"], said["reasonCode"]) == (
        "capability",
        "scope_capability_denied",
    )
    assert said["stages"][-1]["outcome"] == "not reached"


def test_api_lists_decides_and_grants(desk, rob, workspace):
    ask(mail(rob, workspace))
    (item,) = desk.get("/api/v1/approvals").json()["items"]

    body = {"approve": True, "reason": "daily", "grantHours": 8}
    answered = desk.post(
        f"/api/v1/approvals/{item['id']}", body, content_type="application/json"
    ).json()
    (grant,) = desk.get("/api/v1/grants").json()["items"]

    assert (answered["state"], answered["decidedBy"]) == ("approved", "bob")
    assert grant["constraints"] == {"agents": ["w"], "targets": ["ann@example.org"]}
    assert desk.delete(f"/api/v1/grants/{grant['id']}").status_code == 204


def wanted(**words) -> services.Wanted:
    return services.Wanted(**words)


def try_out(principal, **words):
    return services.what_if(by=principal, wanted=wanted(**words))


def test_what_if_grant_then_fewer_would_be_asked(rob, workspace, bob):
    ask(mail(rob, workspace))
    ask(mail(rob, workspace, "eve@evil.test"))

    report = try_out(
        bob.principal,
        capabilities=("mail/*",),
        constraints={"targets": ["*@example.org"]},
        hours=1,
    )

    assert (report.before["asks"], report.after["asks"]) == (2, 1)
    assert report.asks_per_hour_after == 1.0
    assert Grant.objects.count() == 0


def test_what_if_grant_less_then_more_would_be_asked(rob, workspace, bob):
    grant = services.make_grant(
        by=bob.principal,
        new=services.NewGrant(CallKind.TOOL, ("mail/*",), "mail", workspace),
    )
    services.call(mail(rob, workspace))

    report = try_out(bob.principal, grant_removed=grant.id)

    assert (report.before["allowed"], report.after["asks"]) == (1, 1)
    assert report.changed[0].why == "it would ask: external_write"


@pytest.mark.parametrize(
    ("level", "effects", "after"),
    [("destructive", "external", "asks"), ("read", "none", "allowed")],
)
def test_what_if_risk(rob, workspace, bob, level, effects, after):
    services.make_grant(
        by=bob.principal,
        new=services.NewGrant(CallKind.TOOL, ("mail/*",), "mail", workspace),
    )
    services.call(mail(rob, workspace))
    risk = {"riskLevel": level, "sideEffects": effects, "dataEgress": "none"}

    report = try_out(bob.principal, risk_of="mail/send", risk=risk)

    assert report.after[after] == 1


def test_what_if_budget_then_the_later_calls_are_refused(rob, workspace, bob):
    budget = Budget.objects.create(
        workspace=workspace, scope="workspace", unit="micros", window="day", limit=999
    )
    read = Risk("read")
    for _ in range(3):
        services.call(mail(rob, workspace, risk=read))

    report = try_out(bob.principal, budget_id=budget.id, limit=100)

    assert (report.after["allowed"], report.after["denied"]) == (2, 1)
    assert (report.micros_before, report.micros_after) == (120, 80)


def test_what_if_higher_budget_then_refused_calls_would_go(rob, workspace, bob):
    budget = Budget.objects.create(
        workspace=workspace, scope="workspace", unit="micros", window="day", limit=10
    )
    with pytest.raises(BudgetExceeded):
        services.call(mail(rob, workspace, risk=Risk("read")))

    report = try_out(bob.principal, budget_id=budget.id, limit=1000)

    assert (report.before["denied"], report.after["denied"]) == (1, 0)


def test_what_if_stricter_then_it_cannot_tell_without_schemas(rob, workspace, bob):
    services.set_strictness(
        by=access.system_principal(), strictness="enforce", reason="test"
    )
    services.call(mail(rob, workspace, risk=Risk("read")))

    report = try_out(bob.principal, strictness="hardened")

    assert report.cannot_tell == 1


def test_what_if_arguments_erased_then_cannot_tell(rob, workspace, bob):
    services.call(mail(rob, workspace, risk=Risk("read")))
    row = Call.objects.get()
    facts = {k: v for k, v in row.facts.items() if k not in ("targets", "target_count")}
    Call.objects.filter(id=row.id).update(arguments="", facts=facts)
    risk = {"riskLevel": "write", "sideEffects": "internal"}

    report = try_out(bob.principal, risk_of="mail/send", risk=risk)

    assert report.cannot_tell == 1


def test_what_if_calls_of_others_are_not_replayed(rob, workspace, charlie):
    ask(mail(rob, workspace))

    report = try_out(access.principal_for_user(user=charlie), capabilities=("*",))

    assert report.calls == 0


def test_what_if_older_calls_are_left_out(rob, workspace, bob):
    with clock.frozen(clock.now() - timedelta(hours=3)):
        ask(mail(rob, workspace))

    assert try_out(bob.principal, capabilities=("*",), hours=2).calls == 0


@pytest.mark.parametrize(
    "words",
    [{}, {"strictness": "lax"}, {"strictness": "observe", "capabilities": ("*",)}],
)
def test_what_if_without_one_known_change_is_refused(words, bob):
    with pytest.raises(Invalid):
        try_out(bob.principal, **words)


@pytest.mark.parametrize(
    "words",
    [
        {"change": "grant", "kind": "tool", "capabilities": "mail/*", "targets": "*"},
        {"change": "risk", "risk_of": "mail/send", "riskLevel": "read"},
        {"change": "strictness", "strictness": "observe"},
    ],
)
def test_what_if_page_shows_before_and_after(desk, rob, workspace, words):
    ask(mail(rob, workspace))

    html = page(desk, "whatif", **words)

    assert "With the change" in html and "Approvals per hour" in html


def test_what_if_page_names_a_broken_field(desk):
    assert "grant_removed: " in page(
        desk, "whatif", change="revoke", grant_removed="nonsense"
    )


def test_what_if_over_the_api_saves_nothing(desk, rob, workspace):
    ask(mail(rob, workspace))

    said = desk.post(
        "/api/v1/policy/what-if",
        json.dumps({"capabilities": ["mail/*"]}),
        content_type="application/json",
    ).json()

    assert (said["before"], said["after"]) == ({"asks": 1}, {"allowed": 1})
    assert not Grant.objects.exists()
