from django.apps import AppConfig

from apps.providers import ports

_ADAPTERS = "apps.providers.adapters"


class ProvidersConfig(AppConfig):
    name = "apps.providers"
    label = "providers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        for kind in ("openai", "openai_compatible", "anthropic", "gemini"):
            ports.register(
                kind,
                adapter=f"{_ADAPTERS}.wire.WireAdapter",
                catalog=f"{_ADAPTERS}.catalog.HttpCatalog",
            )
        scripted = f"{_ADAPTERS}.scripted.ScriptedAdapter"
        ports.register("scripted", adapter=scripted, catalog=scripted)
