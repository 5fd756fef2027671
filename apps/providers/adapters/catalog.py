"""The small JSON questions to a provider: its model list, embeddings, a probe."""

import json
from typing import Any

import httpx

from apps.common import egress
from apps.common.errors import Denied
from apps.common.redaction import SecretStr
from apps.common.units import whole_number
from apps.providers.adapters.watch import base_url, key_headers, local_hosts
from apps.providers.errors import ModelCallFailed
from apps.providers.ports import (
    EmbedCall,
    Spendable,
    Target,
    TokenUsage,
    embed_arguments,
    list_arguments,
)

_TIMEOUT = httpx.Timeout(20.0, connect=5.0)
#: Where a local server that may not be there is looked for. Units: seconds.
_PROBE_TIMEOUT = httpx.Timeout(0.3)


class HttpCatalog:
    """The catalog of every kind that speaks HTTP."""

    def list_models(
        self, permit: Spendable, target: Target, key: SecretStr | None
    ) -> list[str]:
        """Ask a server which models it has."""
        permit.spend(list_arguments(target))
        return _names(_send(target, key, "GET", _list_path(target)), target.kind)

    def embed(
        self, permit: Spendable, call: EmbedCall, key: SecretStr | None
    ) -> tuple[list[list[float]], TokenUsage]:
        """Turn texts into vectors; OpenAI kinds only."""
        kind = call.target.kind
        if kind not in ("openai", "openai_compatible"):
            raise ModelCallFailed("bad_response", f"{kind} providers embed nothing")
        permit.spend(embed_arguments(call))
        body = {"model": call.model, "input": list(call.texts)}
        return _vectors(_send(call.target, key, "POST", "/embeddings", body), call)

    def probe(self, permit: Spendable, target: Target) -> list[str] | None:
        """List the models of a server nearby, or None when none answers.

        Looks only where an operator's setting points, and only for a moment.
        """
        permit.spend(list_arguments(target))
        ollama = bool(target.settings.get("ollama"))
        url = base_url(target) + "/models"
        if ollama:
            url = base_url(target).removesuffix("/v1") + "/api/tags"
        try:
            with egress.client(
                local=local_hosts(target), timeout=_PROBE_TIMEOUT
            ) as http:
                found = http.get(url).raise_for_status().json()
            return _names(found, "ollama" if ollama else target.kind)
        except (httpx.HTTPError, OSError, ValueError, Denied, ModelCallFailed):
            return None


def _vectors(found: Any, call: EmbedCall) -> tuple[list[list[float]], TokenUsage]:
    try:
        rows = sorted(found["data"], key=lambda row: row["index"])
        vectors = [[float(value) for value in row["embedding"]] for row in rows]
        spent = int(found.get("usage", {}).get("prompt_tokens", 0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelCallFailed("bad_response", "not an embedding answer") from error
    if len(vectors) != len(call.texts):
        raise ModelCallFailed("bad_response", "fewer vectors than texts")
    return vectors, TokenUsage(tokens_in=spent)


def _list_path(target: Target) -> str:
    return {"anthropic": "/v1/models", "gemini": "/v1beta/models"}.get(
        target.kind, "/models"
    )


def _names(found: Any, kind: str) -> list[str]:
    members = {"gemini": ("models", "name"), "ollama": ("models", "name")}
    listed, name = members.get(kind, ("data", "id"))
    try:
        names = [str(row[name]).removeprefix("models/") for row in found[listed]]
    except (KeyError, TypeError) as error:
        raise ModelCallFailed("bad_response", "not a list of models") from error
    return sorted(names)


def _send(
    target: Target,
    key: SecretStr | None,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
) -> Any:
    headers = key_headers(target.kind, key)
    if target.kind == "anthropic":
        headers["anthropic-version"] = "2023-06-01"
    try:
        with egress.client(local=local_hosts(target), timeout=_TIMEOUT) as http:
            answer = http.request(
                method, base_url(target) + path, headers=headers, json=body
            )
    except httpx.ConnectTimeout as error:
        raise ModelCallFailed("timeout_connect") from error
    except httpx.TimeoutException as error:
        raise ModelCallFailed("timeout_first_byte") from error
    except (httpx.HTTPError, OSError, Denied) as error:
        raise ModelCallFailed("network", f"cannot reach the server: {error}") from error
    _check_status(answer)
    try:
        return answer.json()
    except json.JSONDecodeError as error:
        raise ModelCallFailed("bad_response", "the answer is not JSON") from error


def _check_status(answer: httpx.Response) -> None:
    status = answer.status_code
    if status < 300:
        return
    classes = {401: "auth", 403: "auth", 429: "rate_limited"}
    error_class = classes.get(
        status, "server_error" if status >= 500 else "bad_response"
    )
    waits = answer.headers.get("retry-after", "")
    raise ModelCallFailed(
        error_class,
        f"the server answered {status}",
        retry_after=whole_number(waits),
    )
