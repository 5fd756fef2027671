"""What outside watchers may read: numbers for Prometheus, spans for OpenTelemetry."""

from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from prometheus_client.parser import text_string_to_metric_families

from apps.access.models import Principal, Role, Workspace
from apps.access.services import principal_for_user
from apps.agents.engine import metrics
from apps.agents.models import AgentProfile, Turn
from apps.common import tracing
from apps.gateway.models import Budget
from apps.providers import services as providers
from tests import people
from tests.agents.conftest import FakeModel, FakeTools, asks, carry, says
from tests.agents.test_api import client_of
from tests.fakes.openai_server import openai_server
from tests.providers import builders

pytestmark = pytest.mark.django_db


def read() -> dict[str, list[Any]]:
    families = text_string_to_metric_families(metrics.exposition())
    return {each.name: each.samples for each in families}


def test_numbers_are_what_prometheus_itself_reads(workspace: Workspace) -> None:
    builders.ready(workspace)
    odd = 'quote " and \\ back'
    Budget.objects.create(
        workspace=workspace,
        scope="user",
        scope_key=odd,
        unit="micros",
        window="day",
        limit=200,
        spent=50,
    )
    with openai_server("500") as bad, openai_server() as good:
        builders.route("brain", "one", bad.url)
        builders.route("local", "two", good.url)
        providers.generate(request=builders.request(workspace))

    found = read()
    (calls,) = found["polar_model_calls"]
    assert (calls.value, calls.labels["lane_change"]) == (1, "fallback")
    assert calls.labels["lane_reason"] == "lane_failed"
    assert found["polar_route_failures"][0].labels["error_class"] == "server_error"
    ratio = next(s for s in found["polar_budget_used_ratio"] if s.labels["key"] == odd)
    assert ratio.value == 0.25


def test_metrics_are_off_until_asked_for(
    operator: Principal, primary: AgentProfile, settings: Any
) -> None:
    client = client_of(operator, "providers:read")
    off = client.get("/api/v1/metrics")
    settings.POLAR_METRICS = True
    on = client.get("/api/v1/metrics")

    assert (off.status_code, on.status_code) == (404, 200)
    assert on["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"# TYPE polar_runs gauge" in on.content


def test_metrics_of_the_install_are_for_operators(
    workspace: Workspace, settings: Any
) -> None:
    settings.POLAR_METRICS = True
    viewer = principal_for_user(user=people.person("vera", Role.VIEWER, workspace))

    answer = client_of(viewer, "providers:read").get("/api/v1/metrics")
    assert answer.status_code == 403


class Kept:
    """A tracer that keeps what it is told, in the library's own shape."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    @contextmanager
    def start_as_current_span(self, name: str, **options: Any) -> Any:
        held = {"name": name, **options["attributes"]}
        above = trace.get_current_span(options["context"]).get_span_context()
        held["trace_id"] = trace.format_trace_id(above.trace_id)
        self.spans.append(held)
        inner = trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)
        inner.set_attributes = held.update  # type: ignore[method-assign]
        inner.set_attribute = held.__setitem__  # type: ignore[method-assign]
        yield inner


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    found = Kept()
    monkeypatch.setattr(tracing.trace, "get_tracer", lambda name: found)
    return found


def test_no_span_is_opened_until_asked_for(
    kept: Kept, turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("Noon.")]
    carry(turn)

    assert kept.spans == []


def test_spans_name_agent_and_tool_and_tell_no_words(
    kept: Kept, turn: Turn, model: FakeModel, tools: FakeTools, settings: Any
) -> None:
    settings.POLAR_OTEL = True
    model.answers = [says("", asks("polar_clock")), says("Noon.")]
    carry(turn)

    names = [span["name"] for span in kept.spans]
    assert names == ["invoke_agent primary", "execute_tool polar_clock"]
    assert {span["trace_id"] for span in kept.spans} == {turn.trace_id}
    assert "What time is it?" not in str(kept.spans)


def test_a_models_span_has_its_tokens_or_its_error(
    kept: Kept, workspace: Workspace, settings: Any
) -> None:
    settings.POLAR_OTEL = True
    builders.ready(workspace)
    with openai_server("500") as bad, openai_server() as good:
        builders.route("brain", "one", bad.url)
        builders.route("local", "two", good.url)
        providers.generate(request=builders.request(workspace))

    failed, served = kept.spans
    assert failed["error.type"] == "server_error"
    assert served["gen_ai.operation.name"] == "chat"
    assert served["gen_ai.request.model"] == "fake-1"
    assert served["gen_ai.provider.name"] == "openai_compatible"
    said = served["gen_ai.usage.input_tokens"], served["gen_ai.usage.output_tokens"]
    assert said == (10, 5)
