"""Providers, routes and requests for tests, built through the services."""

from typing import Any

from apps.access import services as access
from apps.access.models import Workspace
from apps.gateway import services as gateway
from apps.providers import ports
from apps.providers import services as providers
from apps.providers.models import Route


def route(
    lane: str, slug: str = "fake", url: str = "", *, model: str = "fake-1", **more: Any
) -> Route:
    """Put one model of one provider into a lane, with short deadlines."""
    system = access.system_principal()
    kind = more.pop("kind", "openai_compatible" if url else "scripted")
    entry = providers.ProviderEntry(slug=slug, kind=kind, base_url=url, **more)
    provider = providers.save_provider(by=system, entry=entry)
    row = providers.save_model(
        by=system,
        provider=provider,
        entry=providers.ModelEntry(
            name=model, input_micros=1_000_000, output_micros=2_000_000
        ),
    )
    made = providers.save_route(by=system, lane=lane, model=row)
    quick = {"first_byte_seconds": 0.5, "idle_seconds": 0.5, "wall_seconds": 3}
    Route.objects.filter(pk=made.pk).update(**quick)
    made.refresh_from_db()
    return made


def ready(workspace: Workspace) -> None:
    """Ship the standing grants, as set-up does."""
    gateway.install_shipped_grants(by=access.system_principal())


def request(workspace: Workspace, text: str = "Hello?", **changes: Any) -> Any:
    """Ask for an answer as the system."""
    options: dict[str, Any] = {
        "lane": "brain",
        "messages": (ports.Message("user", text),),
        "principal": access.system_principal(),
        "workspace_id": workspace.pk,
    }
    return providers.GenerateRequest(**(options | changes))
