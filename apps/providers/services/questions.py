"""The small questions to a provider: which models, does it answer, vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.access.models import Principal
from apps.access.queries import default_workspace
from apps.common import clock
from apps.common.errors import PolarError
from apps.common.redaction import SecretStr
from apps.gateway import services as gateway
from apps.gateway.ports import CallKind, CallRequest, Estimate, Lineage, Permit, Result
from apps.providers import ports
from apps.providers.errors import ModelCallFailed
from apps.providers.models import Model, Provider
from apps.providers.policies import check_test
from apps.providers.services import keys
from apps.providers.services.generation import once, risk_of, tariff_of, usage_of

TEST_QUESTION = "Answer with the one word: ready"
TEST_TOKENS = 200


@dataclass(frozen=True, slots=True)
class _Question:
    capability: str
    arguments: dict[str, Any]
    perform: Callable[[Permit, SecretStr | None], Result]
    estimate: Estimate = Estimate()
    coming: bool = False


@dataclass(frozen=True, slots=True)
class TestReport:
    """What a test of a provider found."""

    __test__ = False

    provider: str
    ok: bool
    models: tuple[str, ...]
    model: str
    answer: str
    duration_ms: int
    error_class: str
    detail: str


def list_models(
    *, by: Principal, provider: Provider, coming: bool = False
) -> list[str]:
    """Ask a provider which models it has, through the gateway."""
    target = provider.target
    catalog = ports.catalog_for(provider.kind)
    found: list[str] = _ask(
        by,
        provider,
        _Question(
            f"provider:{provider.slug}/models",
            ports.list_arguments(target),
            lambda permit, key: Result(catalog.list_models(permit, target, key)),
            coming=coming,
        ),
    )
    return found


def test_provider(
    *, by: Principal, provider: Provider, model: Model | None = None
) -> TestReport:
    """List a provider's models and ask one of them a word.

    A rejected key that works again is trusted again.   Raises: RoleRequired.
    """
    report, failure = try_out(by=by, provider=provider, model=model)
    if failure is not None:
        keys.react(provider, failure)
    elif report.ok:
        keys.restore(provider)
    return report


def try_out(
    *,
    by: Principal,
    provider: Provider,
    model: Model | None = None,
    coming: bool = False,
) -> tuple[TestReport, ModelCallFailed | None]:
    """Ask the small questions with the key in use, or with the coming one."""
    check_test(by)
    failure: ModelCallFailed | None = None
    chosen = model or _first_model(provider)
    began = clock.monotonic()
    models: list[str] = []
    answer, error_class, detail = "", "", ""
    try:
        models = list_models(by=by, provider=provider, coming=coming)
        if chosen is None:
            detail = "no model of this provider has a route yet"
        else:
            answer = _say_ready(by, provider, chosen, coming=coming)
    except PolarError as error:
        error_class = getattr(error, "error_class", error.code)
        detail = error.detail
        failure = error if isinstance(error, ModelCallFailed) else None
    report = TestReport(
        provider=provider.slug,
        ok=not error_class and bool(answer),
        models=tuple(models),
        model=chosen.name if chosen else "",
        answer=answer[:200],
        duration_ms=int((clock.monotonic() - began) * 1000),
        error_class=error_class,
        detail=detail,
    )
    return report, failure


def _first_model(provider: Provider) -> Model | None:
    routed = Model.objects.filter(provider=provider, routes__isnull=False)
    return routed.order_by("output_micros", "name").first()


def _say_ready(by: Principal, provider: Provider, model: Model, *, coming: bool) -> str:
    call = ports.ModelCall(
        target=provider.target,
        model=model.name,
        messages=(ports.Message("user", TEST_QUESTION),),
        max_output_tokens=min(TEST_TOKENS, model.max_output_tokens),
    )

    tariff = tariff_of(model)

    def perform(permit: Permit, key: SecretStr | None) -> Result:
        answer = ports.adapter_for(provider.kind).generate(permit, call, key)
        return Result(answer.text, usage_of(tariff, answer.usage))

    arguments = ports.arguments_of(call)
    question = _Question(f"provider:{model}", arguments, perform, coming=coming)
    said: str = _ask(by, provider, question)
    return said


def embed_text(
    *, by: Principal, model: Model, texts: tuple[str, ...], workspace_id: UUID
) -> list[list[float]]:
    """Turn texts into vectors with a model of an OpenAI kind."""
    provider = model.provider
    tariff = tariff_of(model)
    call = ports.EmbedCall(provider.target, model.name, texts)

    def perform(permit: Permit, key: SecretStr | None) -> Result:
        catalog = ports.catalog_for(provider.kind)
        vectors, usage = catalog.embed(permit, call, key)
        return Result(vectors, usage_of(tariff, usage))

    arguments = ports.embed_arguments(call)
    worst = ports.TokenUsage(tokens_in=arguments["bytes"])
    vectors: list[list[float]] = _ask(
        by,
        provider,
        _Question(
            f"provider:{model}",
            arguments,
            perform,
            Estimate(tariff.price(worst), worst.tokens_in),
        ),
    )
    return vectors


def _ask(by: Principal, provider: Provider, question: _Question) -> Any:
    def with_key(permit: Permit) -> Result:
        with keys.key_of(provider, coming=question.coming) as key:
            return question.perform(permit, key)

    return gateway.call(
        CallRequest(
            kind=CallKind.MODEL,
            capability=question.capability,
            principal=by,
            workspace_id=default_workspace().pk,
            arguments=question.arguments,
            perform=with_key,
            risk=risk_of(provider.kind),
            estimate=question.estimate,
            provider=provider.slug,
            idempotency_key=once(Lineage()),
            needs_secret=provider.secret_id is not None,
        )
    ).output
