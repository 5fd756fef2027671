from django.apps import AppConfig

from apps.providers import ports
from apps.runs import ports as runs
from apps.vault import ports as vault

_ADAPTERS = "apps.providers.adapters"


class ProvidersConfig(AppConfig):
    name = "apps.providers"
    label = "providers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Models exist only now, so these cannot be imported above.
        from . import services

        for kind in ("openai", "openai_compatible", "anthropic", "gemini"):
            ports.register(
                kind,
                adapter=f"{_ADAPTERS}.wire.WireAdapter",
                catalog=f"{_ADAPTERS}.catalog.HttpCatalog",
            )
        scripted = f"{_ADAPTERS}.scripted.ScriptedAdapter"
        ports.register("scripted", adapter=scripted, catalog=scripted)
        vault.plug_places(services.place_of_key)
        runs.warm_ups.register("providers", services.warm_up)
