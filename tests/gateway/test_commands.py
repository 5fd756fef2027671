"""Answering, explaining and trying out from a shell."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from apps.gateway.models import ApprovalRequest, Grant
from tests.gateway.test_desk import TRACE, ask, mail, refused

pytestmark = pytest.mark.django_db


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def test_approvals_are_listed_shown_and_approved(rob, workspace, bob):
    asked = ask(mail(rob, workspace))

    (listed,) = json.loads(run("approvals", "list", "--json"))
    shown = run("approvals", "show", str(asked.id))
    run("approvals", "approve", str(asked.id), "--as", "bob", "--reason", "seen")

    asked.refresh_from_db()
    assert (listed["id"], asked.state) == (str(asked.id), "approved")
    assert "ann@example.org" in shown


@pytest.mark.parametrize("who", ["alice", "nobody"])
def test_approval_by_who_may_not_is_refused(rob, workspace, alice, who):
    asked = ask(mail(rob, workspace))

    with pytest.raises(CommandError):
        run("approvals", "reject", str(asked.id), "--as", who)
    assert ApprovalRequest.objects.get().state == "pending"


def test_explain_says_stage_rule_and_what_would_allow(rob, workspace):
    refused(mail(rob, workspace, scope={"allowed": {"mail": ["read"]}}))

    said = run("explain", TRACE)

    assert "stopped at    capability" in said and "would allow" in said


def test_explain_of_nothing_exits_three(db):
    with pytest.raises(SystemExit) as caught:
        run("explain", "0" * 32)
    assert caught.value.code == 3


def test_grant_is_made_listed_and_revoked(workspace):
    words = ("grant", "mail/*", "--hours", "2", "--reason", "newsletter")
    made = json.loads(run("policy", *words, "--json"))

    assert "newsletter" in run("policy", "grants")
    run("policy", "revoke", made["id"], "--reason", "over")
    assert Grant.objects.get().revoked_at is not None


def test_what_if_from_the_shell_saves_nothing(rob, workspace):
    ask(mail(rob, workspace))

    words = ("what-if", "grant", "--capabilities", "mail/*", "--json")
    said = json.loads(run("policy", *words))

    assert (said["before"], said["after"]) == ({"asks": 1}, {"allowed": 1})
    assert not Grant.objects.exists()
