"""Grants are kept between decisions, and every change is seen by the next one."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.access import services as access
from apps.common import clock
from apps.common.errors import ApprovalRequired
from apps.gateway import services
from apps.gateway.models import Call, Grant
from apps.gateway.ports import CallKind
from tests.gateway.test_desk import mail

pytestmark = pytest.mark.django_db


def grant(bob, *names: str, **fields) -> Grant:
    new = services.NewGrant(CallKind.TOOL, names, "measured", **fields)
    return services.make_grant(by=access.principal_for_user(user=bob), new=new)


@pytest.mark.parametrize(
    "pattern", ["mail/send", "mail/*", "*", "mai?/send", "*/send", "m[a]il/s*"]
)
def test_every_shape_of_pattern_is_found(rob, workspace, bob, pattern):
    grant(bob, "other/*")
    made = grant(bob, "elsewhere/x", pattern)

    call_id = services.call(mail(rob, workspace)).call_id

    assert facts_of(call_id)["grant"] == str(made.id)


def facts_of(call_id) -> dict:
    return Call.objects.get(id=call_id).facts


def test_the_oldest_that_fits_answers(rob, workspace, bob):
    first, _second = grant(bob, "*"), grant(bob, "mail/send")

    said = facts_of(services.call(mail(rob, workspace)).call_id)
    assert said["grant"] == str(first.id)


def test_a_revoked_grant_answers_nothing_more(rob, workspace, bob):
    made = grant(bob, "mail/*")
    services.call(mail(rob, workspace))
    services.revoke_grant(by=access.principal_for_user(user=bob), grant_id=made.id)

    with pytest.raises(ApprovalRequired):
        services.call(mail(rob, workspace))


def test_an_expired_or_foreign_grant_answers_nothing(rob, workspace, bob):
    grant(bob, "mail/*", expires_at=clock.now() + timedelta(hours=1))
    other = access.principal_for_user(user=bob)
    grant(bob, "mail/*", principal=other)
    services.call(mail(rob, workspace))

    later = clock.frozen(clock.now() + timedelta(hours=2))
    with later, pytest.raises(ApprovalRequired):
        services.call(mail(rob, workspace))


def test_the_grants_are_read_once_while_nothing_changes(rob, workspace, bob):
    grant(bob, "mail/*")
    services.call(mail(rob, workspace))
    with CaptureQueriesContext(connection) as seen:
        services.call(mail(rob, workspace))

    reads = [q["sql"] for q in seen if 'FROM "gateway_grant"' in q["sql"]]
    assert reads == []
