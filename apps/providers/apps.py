from django.apps import AppConfig

from apps.providers import ports

_WIRE = "apps.providers.adapters.wire.WireAdapter"


class ProvidersConfig(AppConfig):
    name = "apps.providers"
    label = "providers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        for kind in ("openai", "openai_compatible", "anthropic", "gemini"):
            ports.register(kind, _WIRE)
        ports.register("scripted", "apps.providers.adapters.scripted.ScriptedAdapter")
