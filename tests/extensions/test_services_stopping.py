"""The kill switch: refused at once, ended, and certified as far as it was seen."""

import base64
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import connection, connections

from apps.access.errors import RoleRequired
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import ids
from apps.common.errors import Denied, Invalid, NotTrusted, PolarError, UpstreamError
from apps.extensions import ports, services
from apps.extensions.adapters import processes, sandbox
from apps.extensions.models import Certificate, Extension
from apps.extensions.services import stopping
from apps.gateway import services as gateway
from apps.gateway.models import Call

from .conftest import HARMLESS, ORIGIN, approve, enable

TRIALS = int(os.environ.get("POLAR_REVOKE_TRIALS", "3"))


def stop(row, by, operation="revoke", reason="loops"):
    return services.stop_extension(
        by=by.principal, extension_id=row.id, operation=operation, reason=reason
    )


def test_revoked_is_refused_from_the_next_call(orders, alice, call, runtime):
    stop(orders, alice)

    with pytest.raises(NotTrusted, match="loops"):
        call("orders__find")
    assert runtime.targets == []


def test_certificate_is_signed_and_in_the_chain(orders, alice):
    found = stop(orders, alice)

    assert audit.is_signed(found.body.encode(), base64.b64decode(found.signature))
    event = Event.objects.get(type="extension.stopped")
    assert event.subject_id == str(orders.id)
    assert json.loads(found.body)["reason"] == "loops"


def test_changed_certificate_does_not_verify(orders, alice):
    found = stop(orders, alice)
    forged = found.body.replace("loops", "other")

    assert not audit.is_signed(forged.encode(), base64.b64decode(found.signature))


def test_runtimes_are_told_and_their_word_is_kept(orders, alice, runtime):
    runtime.terminations = [
        ports.Termination(what="pid 7", is_confirmed=True),
        ports.Termination(what="session 9", is_confirmed=False, detail="silent"),
    ]

    found = stop(orders, alice)

    body = json.loads(found.body)
    assert runtime.stopped == [orders.id]
    assert [each["state"] for each in body["processes"]] == ["confirmed", "unconfirmed"]
    assert found.unconfirmed == 1


def test_runtime_that_fails_to_stop_is_unconfirmed(orders, alice, runtime, monkeypatch):
    def fail(extension_id):
        raise UpstreamError("no answer")

    monkeypatch.setattr(runtime, "stop", fail)

    assert stop(orders, alice).unconfirmed == 1


def test_call_in_doubt_is_unconfirmed_and_names_its_turn(orders, alice, call):
    call("orders__find")
    turn_id = orders.id
    Call.objects.filter(kind="tool").update(state="executing", turn_id=turn_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopping, "SETTLE_SECONDS", 0.0)
        body = json.loads(stop(orders, alice).body)

    (turn,) = body["turns"]
    assert (turn["state"], turn["turnId"]) == ("unconfirmed", str(turn_id))


def test_stop_works_under_a_halt_of_everything(orders, alice):
    gateway.halt(by=alice.principal, scope="all", reason="S1")

    stop(orders, alice)

    assert Extension.objects.get(id=orders.id).trust == "blocked"


def test_disable_stops_and_keeps_the_review(orders, alice, bob, call):
    stop(orders, alice, operation="disable")
    with pytest.raises(NotTrusted):
        call("orders__find")

    services.enable_extension(by=bob.principal, extension_id=orders.id, reason="fixed")

    assert call("orders__find").output == {"did": "find"}


def test_agent_and_outsider_stop_nothing(orders, rob, charlie):
    with pytest.raises(Denied):
        services.stop_extension(
            by=rob, extension_id=orders.id, operation="revoke", reason="x"
        )
    with pytest.raises(RoleRequired):
        stop(orders, charlie)
    assert not Certificate.objects.exists()


def test_stop_needs_a_reason(orders, alice):
    with pytest.raises(Invalid):
        stop(orders, alice, reason=" ")


def test_revoke_between_decision_and_start_wins(orders, alice, call, runtime):
    """The start reads trust in its own transaction."""
    runtime.before_send = lambda: Extension.objects.filter(id=orders.id).update(
        trust="blocked", trust_reason="bad", reviewed_hash=""
    )

    with pytest.raises(NotTrusted):
        call("orders__find")

    assert runtime.targets == []
    assert Call.objects.get(kind="tool").started_at is None


def test_another_form_between_decision_and_start_does_not_run(orders, call, runtime):
    form = "0" * 64
    runtime.before_send = lambda: Extension.objects.filter(id=orders.id).update(
        definition_hash=form, reviewed_hash=form
    )

    with pytest.raises(NotTrusted) as caught:
        call("orders__find")

    assert caught.value.reason_code == "definition_changed"
    assert runtime.targets == []


@pytest.mark.django_db(transaction=True)
def test_race_of_revoke_against_execute_starts_nothing_late(
    on_a_file, orders, alice, bob, call
):
    """0 effects start after the revoke, however the two interleave: the revoke reads
    the time once it holds every start, a start once it holds its own lock."""
    late, outcomes = 0, Counter[str]()
    for _ in range(TRIALS):
        actors, began = [], threading.Barrier(3)
        for _ in range(2):
            act = partial(attempt, call, "orders__find", began, outcomes, 0.06)
            actors.append(threading.Thread(target=act))
            actors[-1].start()
        began.wait()
        stop(orders, alice)
        revoked_at = Extension.objects.get(id=orders.id).trust_at
        for actor in actors:
            actor.join(30)
        late += Call.objects.filter(kind="tool", started_at__gt=revoked_at).count()
        approve(orders, bob, trust="reviewed", reason="again")
    sys.stdout.write(
        f"\n{TRIALS} trials, {connection.vendor}: {late} late, {dict(outcomes)}"
    )
    assert late == 0
    assert sum(outcomes.values()) == 2 * TRIALS


def attempt(
    call: Callable[..., Any],
    alias: str,
    began: threading.Barrier,
    outcomes: Counter[str],
    most_pause: float = 0.0,
) -> None:
    """One thread's call, and how it ended."""
    began.wait()
    time.sleep(random.uniform(0, most_pause))
    try:
        call(alias, idempotency_key=ids.new_id().hex)
        outcomes["done"] += 1
    except PolarError as error:
        outcomes[type(error).__name__] += 1
    finally:
        connections.close_all()


SLEEPER = {
    "SKILL.md": b"---\nname: sleeper\ndescription: Sleeps.\n---\nSleep.\n",
    "scripts/sleep.py": b"import time\ntime.sleep(60)\n",
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(
    not sandbox.isolation().is_available, reason=sandbox.isolation().detail
)
def test_race_of_revoke_against_processes_leaves_none(on_a_file, alice, bob, call):
    """Whenever the revoke comes, between the first step of a call and the sleep of
    its process: what had started is dead within two seconds, nothing starts later."""
    row = services.install_skill(by=alice.principal, files=SLEEPER, origin=ORIGIN)
    row.capabilities.update(effect_class="keyed")
    row = enable(approve(row, bob, risks={"scripts/sleep.py": HARMLESS}), bob)
    late, outcomes, took, ended = 0, Counter[str](), [], 0
    for trial in range(TRIALS):
        began = threading.Barrier(2)
        act = partial(attempt, call, "sleeper__scripts_sleep_py", began, outcomes)
        actor = threading.Thread(target=act)
        actor.start()
        began.wait()
        time.sleep(random.Random(trial).uniform(0, 0.3))
        found = json.loads(stop(row, alice).body)
        left = processes.end_extension(row.id)
        actor.join(30)
        revoked_at = Extension.objects.get(id=row.id).trust_at
        late += Call.objects.filter(kind="tool", started_at__gt=revoked_at).count()
        took += [each["milliseconds"] for each in found["processes"]]
        ended += len(found["processes"])
        # One that was made ready while the revoke came has no right to a step.
        assert [each for each in left if not each.is_confirmed] == []
        assert {each["state"] for each in found["processes"]} <= {"confirmed"}
        assert not actor.is_alive()
        approve(row, bob, reason="again")
    sys.stdout.write(
        f"\n{TRIALS} trials, {connection.vendor}: {late} late, {ended} processes"
        f" ended, the slowest after {max(took, default=0)} ms, {dict(outcomes)}"
    )
    assert late == 0
    assert max(took, default=0) <= processes.END_SECONDS * 1000
    assert processes.end_extension(row.id) == []
