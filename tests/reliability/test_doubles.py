"""The doubles of drills speak their vendors' wires, and refuse when they are cut."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Workspace
from apps.audit.adapters.http_sink import HttpSink, LogHost
from apps.audit.errors import SinkRefused
from apps.audit.ports import Line
from apps.channels import services as channels
from apps.channels.models import Account, OutboxMessage
from apps.common import clock, egress
from apps.common.egress import EgressRefused
from apps.extensions import services as extensions
from apps.extensions.errors import ToolTransientError
from apps.providers import services as providers
from apps.providers.errors import NoRouteAvailable
from apps.reliability.adapters.doubles import Double
from apps.reliability.adapters.stage import BROKER, Stage
from apps.reliability.engine.drilling import channelling
from apps.reliability.errors import DrillFailed
from apps.reliability.ports import Scenery
from tests.channels.conftest import carry
from tests.providers import builders

Play = Callable[[str], Double]


@pytest.fixture
def play() -> Iterator[Play]:
    played: list[Double] = []

    def begin(kind: str) -> Double:
        played.append(Double(kind, Stage().free_ports(1)[0]))
        return played[-1]

    yield begin
    for each in played:
        each.cut()


def test_model_server_answers_over_the_wire_and_is_gone_when_cut(
    play: Play, workspace: Workspace
) -> None:
    double = play("models")
    double.manner |= {"reply": "Here I am.", "key": "sk-right"}
    builders.ready(workspace)
    builders.route("brain", url=f"http://{double.place}/v1", key="sk-right")
    asked = builders.request(workspace)

    answer = providers.generate(request=asked)
    assert (answer.text, answer.usage.tokens_out) == ("Here I am.", 5)
    assert double.heard[0]["messages"][-1]["content"] == "Hello?"

    double.cut()
    with pytest.raises(NoRouteAvailable, match="network"):
        providers.generate(request=asked)
    double.mend()
    assert providers.generate(request=asked).text == "Here I am."
    double.manner["key"] = "sk-another"
    with pytest.raises(NoRouteAvailable, match="auth"):
        providers.generate(request=asked)


@pytest.mark.django_db(transaction=True)
def test_bot_hears_what_is_said_once_it_is_back(
    play: Play, workspace: Workspace, settings: Any, tmp_path: Path
) -> None:
    settings.POLAR_WITNESS_DIR = tmp_path
    double, system = play("bot"), access.system_principal()
    builders.ready(workspace)
    double.manner |= {"token": channelling.TOKEN, "updates": []}
    account = channels.save_bot(
        by=system,
        workspace=workspace,
        kind="telegram",
        slug="played",
        token=channelling.TOKEN,
    )
    place = {"api_url": f"http://{double.place}", "local": [double.place]}
    Account.objects.filter(id=account.id).update(settings=place)
    account.refresh_from_db()
    told = channels.Changes(alerts_to="7")
    channels.change_account(by=system, account=account, changes=told)
    double.cut()
    channels.tell_operators("It is dark.", "k")
    carry(channels.SEND_KIND, rounds=1)
    assert double.heard == []
    assert OutboxMessage.objects.get().state == "pending"

    double.mend()
    with clock.frozen(clock.now() + timedelta(seconds=30)):
        carry(channels.SEND_KIND)

    assert [form["text"] for form in double.heard] == ["It is dark."]
    assert OutboxMessage.objects.get().state == "sent"


def test_log_host_counts_for_itself_and_refuses_a_gap(play: Play) -> None:
    double = play("log")
    sink = HttpSink(lambda: LogHost(f"http://{double.place}/", local=(double.place,)))

    def lines(*numbers: int) -> list[Line]:
        return [Line(n, json.dumps({"metadata": {"sequence": n}})) for n in numbers]

    assert sink.last_contiguous_seq() == -1
    assert sink.append(lines(0, 1)) == 1
    with pytest.raises(SinkRefused) as refused:
        sink.append(lines(3))
    assert refused.value.facts["last_contiguous_seq"] == 1
    double.manner["claims"] = 9
    assert sink.last_contiguous_seq() == 9
    assert len(double.heard) == 2


def test_tool_server_is_taken_in_and_what_it_says_is_compared(
    play: Play, workspace: Workspace
) -> None:
    double, system = play("tools"), access.system_principal()
    grants = {"domains": ["127.0.0.1"], "local": [double.place]}
    new = extensions.NewServer(
        extension_id="played", url=f"http://{double.place}/mcp", grants=grants
    )

    row = extensions.sync_mcp_server(by=system, new=new, reason="a test")
    before = row.definition_hash
    double.manner["description"] = "Look again."
    row = extensions.sync_mcp_server(by=system, extension_id=row.id, reason="again")

    assert row.definition_hash != before
    assert [each.capability_id for each in row.capabilities.all()] == ["look"]
    double.cut()
    with pytest.raises(ToolTransientError):
        extensions.sync_mcp_server(by=system, extension_id=row.id, reason="gone")


def test_double_that_nobody_wrote_is_refused() -> None:
    with pytest.raises(DrillFailed, match="models, bot, log, tools"):
        Double("fax", 0)


def test_double_on_a_taken_port_is_refused(play: Play) -> None:
    taken = int(play("log").place.rsplit(":", 1)[1])

    with pytest.raises(DrillFailed, match="cannot be played on"):
        Double("log", taken)


def test_clone_reaches_its_doubles_and_nothing_else(play: Play, settings: Any) -> None:
    double = play("log")
    settings.POLAR_CLONE = "/a/clone"
    settings.POLAR_CLONE_REACHES = [double.place]

    def status(url: str, *local: str) -> int:
        with egress.client(local=local) as client:
            return client.get(url).status_code

    assert status(f"http://{double.place}/", double.place) == 200
    for url, local in (
        ("http://127.0.0.1:1/", "127.0.0.1:1"),
        ("https://example.com/", "example.com:443"),
        (f"http://localhost:{double.place.split(':')[1]}/", double.place),
    ):
        with pytest.raises(EgressRefused, match="doubles alone"):
            status(url, local)
    # What the clone may reach is no licence: the address has to be written down too.
    with pytest.raises(EgressRefused, match="not a public address"):
        status(f"http://{double.place}/")


def test_broker_of_a_drill_holds_hints_and_loses_them() -> None:
    stage = Stage()
    if stage.lacks(Scenery(has_broker=True)):
        pytest.skip(f"{BROKER} is not installed here")
    broker = stage.broker(f"127.0.0.1:{stage.free_ports(1)[0]}")
    try:
        broker._redis.rpush("default", "one", "two")
        assert broker.holds() == 2
        broker.wipe()
        assert broker.holds() == 0
    finally:
        broker.end()
    assert broker.code is not None
