"""Spans for OpenTelemetry, in its words for generative AI. Off unless asked for.

Hides: the library. Without its SDK the spans go nowhere; what exports them is set
up by the operator with the library's own variables. Invariants: a span carries
names, numbers and error classes, never a message, an argument or a secret; its
trace is Polar's own trace id.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from django.conf import settings
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from apps.common.errors import PolarError

Attribute = str | int | bool
CHAT, AGENT, TOOL = "chat", "invoke_agent", "execute_tool"
_NAMES = {
    CHAT: "gen_ai.request.model",
    AGENT: "gen_ai.agent.name",
    TOOL: "gen_ai.tool.name",
}


class Span:
    """What a caller may add to the span that is open."""

    def __init__(self, inner: trace.Span | None = None) -> None:
        self._inner = inner

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        if self._inner is not None:
            self._inner.set_attributes(attributes)


@contextmanager
def span(
    operation: str, name: str, *, trace_id: str = "", **attributes: Attribute
) -> Iterator[Span]:
    """Open one gen_ai span around a block; an error of ours gives it its type.

    Shape: attributes by their last word with _ for a dot: provider_name gives
    gen_ai.provider.name.
    """
    if not settings.POLAR_OTEL:
        yield Span()
        return
    told = {f"gen_ai.{key.replace('_', '.', 1)}": v for key, v in attributes.items()}
    told |= {"gen_ai.operation.name": operation, _NAMES[operation]: name}
    kind = SpanKind.CLIENT if operation == CHAT else SpanKind.INTERNAL
    tracer = trace.get_tracer("polar")
    with tracer.start_as_current_span(
        f"{operation} {name}",
        context=_within(trace_id),
        kind=kind,
        attributes=told,
        record_exception=False,
        set_status_on_exception=False,
    ) as inner:
        try:
            yield Span(inner)
        except PolarError as error:
            inner.set_attribute("error.type", getattr(error, "error_class", error.code))
            inner.set_status(trace.StatusCode.ERROR)
            raise


def _within(trace_id: str) -> Context | None:
    """Stand below the open span, else at the root of Polar's own trace."""
    if not trace_id or trace.get_current_span().get_span_context().is_valid:
        return None
    whole = int(trace_id, 16)
    above = SpanContext(whole, whole & (2**64 - 1) or 1, True, TraceFlags(1))
    return trace.set_span_in_context(NonRecordingSpan(above))
