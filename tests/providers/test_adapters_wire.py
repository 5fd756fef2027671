"""Every way a server can fail has its name; nothing leaves without a permit."""

import asyncio
import dataclasses
import subprocess
import sys
import threading
from typing import Any

import pytest

from apps.common import redaction
from apps.common.errors import Denied
from apps.common.redaction import SecretStr
from apps.providers import ports
from apps.providers.adapters import watch, wire
from apps.providers.errors import CallCancelled, ModelCallFailed
from tests.fakes.openai_server import REPLY, openai_server

KEY = SecretStr("sk-canary-0123456789")
#: For answers that must come, however busy the machine is.
PATIENT = ports.Deadlines(connect=10, first_byte=20, idle=20, wall=60)
#: For failures that are waited for.
#: A loaded machine may take a while to connect; the other waits are the point here.
QUICK = ports.Deadlines(connect=3, first_byte=0.6, idle=0.4, wall=5, max_bytes=200_000)


class Spent:
    """A permit that notes what it was spent on."""

    def __init__(self) -> None:
        self.arguments: list[dict[str, Any]] = []

    def spend(self, arguments: dict[str, Any], *, waits: bool = True) -> None:
        self.arguments.append(arguments)


class Refusing:
    def spend(self, arguments: dict[str, Any], *, waits: bool = True) -> None:
        raise Denied("halted meanwhile")


def a_call(url: str, **changes: Any) -> ports.ModelCall:
    kind = changes.pop("kind", "openai_compatible")
    target = ports.Target(provider_id="p", slug="fake", kind=kind, base_url=url)
    options: dict[str, Any] = {
        "target": target,
        "model": "fake-1",
        "messages": (
            ports.Message("system", "Be brief."),
            ports.Message("user", "Hello?"),
        ),
        "deadlines": PATIENT,
    }
    return ports.ModelCall(**(options | changes))


def ask(call: ports.ModelCall, key: SecretStr | None = KEY) -> ports.Answer:
    return ports.adapter_for(call.target.kind).generate(Spent(), call, key)


@pytest.mark.parametrize("kind", ["openai_compatible", "openai"])
def test_an_answer_streams_and_is_counted(kind: str) -> None:
    heard: list[str] = []
    with openai_server() as server:
        answer = ask(a_call(server.url, kind=kind, on_delta=heard.append))

    assert (answer.text, "".join(heard)) == (REPLY, REPLY)
    assert answer.usage == ports.TokenUsage(10, 5, 2)


def test_the_key_travels_only_in_its_header() -> None:
    with openai_server() as server:
        answer = ask(a_call(server.url))

    assert server.headers_seen[0]["authorization"] == f"Bearer {KEY.reveal()}"
    assert KEY.reveal() not in str(answer.as_json())


@pytest.mark.parametrize(
    ("kind", "header"), [("anthropic", "x-api-key"), ("gemini", "x-goog-api-key")]
)
def test_other_vendors_answer_too(kind: str, header: str) -> None:
    heard: list[str] = []
    with openai_server() as server:
        answer = ask(a_call(server.root, kind=kind, on_delta=heard.append))

    assert (answer.text, "".join(heard)) == (REPLY, REPLY)
    assert (answer.usage.tokens_in, answer.usage.tokens_out) == (10, 5)
    assert server.headers_seen[0][header] == KEY.reveal()


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("401", "auth"),
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("hang", "timeout_first_byte"),
        ("garbage", "bad_response"),
    ],
)
def test_other_vendors_fail_by_the_same_names(
    kind: str, mode: str, expected: str
) -> None:
    with openai_server(mode) as server, pytest.raises(ModelCallFailed) as caught:
        ask(a_call(server.root, deadlines=QUICK, kind=kind))

    assert (caught.value.error_class, len(server.requests)) == (expected, 1)


def test_pages_start_without_vendor_libraries() -> None:
    code = (
        "import django, sys; django.setup(); import apps.providers.services;"
        "print([m for m in ('pydantic_ai', 'openai') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "[]", done.stderr[-400:]


def test_no_key_sends_no_authorization() -> None:
    with openai_server() as server:
        ask(a_call(server.url), None)

    assert "authorization" not in server.headers_seen[0]


def test_local_servers_are_told_max_tokens() -> None:
    with openai_server() as server:
        ask(a_call(server.url, max_output_tokens=77))

    assert server.requests[0]["max_tokens"] == 77


def test_a_refused_permit_sends_nothing() -> None:
    with openai_server() as server, pytest.raises(Denied):
        ports.adapter_for("openai_compatible").generate(
            Refusing(), a_call(server.url), None
        )

    assert server.requests == []


def test_the_permit_is_bound_to_what_is_sent() -> None:
    permit = Spent()
    with openai_server() as server:
        call = a_call(server.url)
        ports.adapter_for("openai_compatible").generate(permit, call, None)

    assert permit.arguments == [ports.arguments_of(call)]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("401", "auth"),
        ("403", "auth"),
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("context", "context_overflow"),
        ("filtered", "content_refused"),
        ("hang", "timeout_first_byte"),
        ("hang_after_headers", "timeout_first_byte"),
        ("drip", "timeout_idle"),
        ("slow", "timeout_deadline"),
        ("half_sse", "bad_response"),
        ("cut", "bad_response"),
        ("garbage", "bad_response"),
        ("error_in_200", "bad_response"),
        ("huge", "bad_response"),
    ],
)
def test_each_failure_has_its_class(mode: str, expected: str) -> None:
    # The cap of bytes is met before that of tokens.
    many = 1_000_000
    with openai_server(mode) as server, pytest.raises(ModelCallFailed) as caught:
        ask(a_call(server.url, deadlines=QUICK, max_output_tokens=many))

    assert caught.value.error_class == expected, caught.value


def test_a_server_that_ignores_its_cap_is_cut_there() -> None:
    heard: list[str] = []
    with openai_server("endless") as server:
        answer = ask(a_call(server.url, max_output_tokens=50, on_delta=heard.append))
        hung_up = server.hung_up.wait(10)

    assert (answer.finish, answer.usage.tokens_out) == ("cut", 51)
    assert answer.text == "".join(heard) == "tok " * 51
    assert hung_up


def test_one_long_piece_is_cut_by_its_bytes() -> None:
    with openai_server() as server:
        server.reply = "x" * 900
        answer = ask(a_call(server.url, max_output_tokens=100))

    assert (answer.finish, answer.usage.tokens_out) == ("cut", 225)


def test_an_answer_within_its_cap_is_whole() -> None:
    with openai_server() as server:
        answer = ask(a_call(server.url, max_output_tokens=5))

    assert (answer.finish, answer.text) == ("stop", REPLY)


def test_a_dropped_connection_is_a_network_failure_or_no_answer() -> None:
    with openai_server("refused") as server, pytest.raises(ModelCallFailed) as caught:
        ask(a_call(server.url, deadlines=QUICK))

    assert caught.value.error_class in ("network", "bad_response")


def test_a_closed_port_is_a_network_failure() -> None:
    with openai_server() as server:
        url = server.url

    with pytest.raises(ModelCallFailed) as caught:
        ask(a_call(url, deadlines=QUICK))

    assert caught.value.error_class == "network"


def test_retry_after_is_read() -> None:
    with openai_server("429") as server, pytest.raises(ModelCallFailed) as caught:
        ask(a_call(server.url, deadlines=QUICK))

    assert caught.value.retry_after == 7


def test_an_error_never_shows_a_leased_key() -> None:
    redaction.register(KEY.reveal())
    try:
        with openai_server("401") as server, pytest.raises(ModelCallFailed) as caught:
            ask(a_call(server.url, deadlines=QUICK))
    finally:
        redaction.forget(KEY.reveal())

    assert KEY.reveal() not in str(caught.value)


def test_missing_usage_is_counted() -> None:
    with openai_server("no_usage") as server:
        answer = ask(a_call(server.url))

    assert answer.usage.counted
    assert answer.usage.tokens_out > 0


@pytest.mark.parametrize("mode", ["tool", "llama"])
def test_a_tool_call_and_its_result_make_the_round(mode: str) -> None:
    tool = ports.Tool("polar__clock_now", "Tell the time", {"type": "object"})
    with openai_server(mode) as server:
        call = a_call(server.url, tools=(tool,))
        first = ask(call)
        (asked,) = first.tool_calls
        told = (
            *call.messages,
            ports.Message("assistant", "", first.tool_calls, native=first.parts),
            ports.Message("tool", "12:00", tool_call_id=asked.id),
        )
        second = ask(a_call(server.url, tools=(tool,), messages=told))

    assert (asked.name, asked.arguments) == ("polar__clock_now", {"zone": "UTC"})
    assert second.text == REPLY


def test_openais_responses_answer_and_are_counted() -> None:
    heard: list[str] = []
    with openai_server() as server:
        answer = ask(with_responses(a_call(server.url, on_delta=heard.append)))

    assert (answer.text, "".join(heard), answer.finish) == (REPLY, REPLY, "stop")
    assert answer.usage == ports.TokenUsage(10, 5, 2)
    assert server.requests[0]["store"] is False


def test_openais_responses_make_the_tool_round() -> None:
    tool = ports.Tool("polar__clock_now", "Tell the time", {"type": "object"})
    with openai_server("tool") as server:
        call = with_responses(a_call(server.url, tools=(tool,)))
        first = ask(call)
        (asked,) = first.tool_calls
        told = (
            *call.messages,
            ports.Message("assistant", "", first.tool_calls, native=first.parts),
            ports.Message("tool", "12:00", tool_call_id=asked.id),
        )
        second = ask(dataclasses.replace(call, messages=told))

    assert (asked.name, asked.arguments) == ("polar__clock_now", {"zone": "UTC"})
    assert second.text == REPLY


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("401", "auth"), ("429", "rate_limited"), ("garbage", "bad_response")],
)
def test_openais_responses_fail_by_the_same_names(mode: str, expected: str) -> None:
    with openai_server(mode) as server, pytest.raises(ModelCallFailed) as caught:
        ask(with_responses(a_call(server.url, deadlines=QUICK)))

    assert (caught.value.error_class, len(server.requests)) == (expected, 1)


def with_responses(call: ports.ModelCall) -> ports.ModelCall:
    """The same call to a server that speaks the Responses API."""
    target = dataclasses.replace(
        call.target, kind="openai", settings={"api": "responses"}
    )
    return dataclasses.replace(call, target=target)


def test_a_trickle_is_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RATE_WINDOW_SECONDS", 0.1)
    with openai_server("trickle") as server, pytest.raises(ModelCallFailed) as caught:
        ask(a_call(server.url, deadlines=PATIENT))

    assert caught.value.error_class == "timeout_idle"
    assert "bytes in" in str(caught.value)


def test_a_stopping_worker_cancels_its_call() -> None:
    with openai_server("hang") as server, pytest.raises(CallCancelled):
        ask(a_call(server.url, deadlines=QUICK, stopping=lambda: True))


def test_many_threads_share_one_loop() -> None:
    answers: list[str] = []
    with openai_server() as server:
        threads = [
            threading.Thread(
                target=lambda: answers.append(ask(a_call(server.url)).text)
            )
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    assert answers == [REPLY] * 12


def test_an_evicted_model_closes_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "MOST_MODELS", 1)
    monkeypatch.setattr(wire, "RETIRE_SECONDS", 0.0)
    adapter = wire.WireAdapter()
    with openai_server() as server:
        adapter.generate(Spent(), a_call(server.url, model="one"), KEY)
        (evicted,) = adapter._models.values()
        adapter.generate(Spent(), a_call(server.url, model="two"), KEY)
        adapter.generate(Spent(), a_call(server.url, model="two"), KEY)

    assert evicted.client.is_closed
    (kept,) = adapter._models.values()
    assert adapter._loop is not None
    asyncio.run_coroutine_threadsafe(kept.client.aclose(), adapter._loop).result(5)


def test_the_catalog_lists_models() -> None:
    with openai_server(models=("b", "a")) as server:
        target = a_call(server.url).target
        found = ports.catalog_for(target.kind).list_models(Spent(), target, KEY)

    assert found == ["a", "b"]


def test_a_wrong_key_has_its_class_in_the_catalog_too() -> None:
    with openai_server("401") as server, pytest.raises(ModelCallFailed) as caught:
        target = a_call(server.url, deadlines=QUICK).target
        ports.catalog_for(target.kind).list_models(Spent(), target, KEY)

    assert caught.value.error_class == "auth"


def test_texts_become_vectors() -> None:
    with openai_server() as server:
        call = ports.EmbedCall(a_call(server.url).target, "fake-1", ("a", "b"))
        vectors, usage = ports.catalog_for("openai").embed(Spent(), call, KEY)

    assert (vectors, usage.tokens_in) == ([[0.0, 1.0], [1.0, 1.0]], 3)


def test_a_silent_neighbour_is_not_waited_for() -> None:
    target = ports.Target("p", "ollama", "openai_compatible", "http://127.0.0.1:9/v1")

    assert ports.catalog_for("openai_compatible").probe(Spent(), target) is None
