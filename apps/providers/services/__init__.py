"""The verbs of providers."""

from apps.providers.engine.plan import Fallback
from apps.providers.services.desk import (
    ModelEntry,
    ProviderEntry,
    add_provider,
    close_breaker,
    remove_provider,
    remove_route,
    save_model,
    save_provider,
    save_route,
    set_enabled,
    trust_key,
)
from apps.providers.services.discovery import sync_from_env
from apps.providers.services.generation import (
    Generated,
    GenerateRequest,
    generate,
    warm_up,
)
from apps.providers.services.holding import (
    LONGEST_HOLD,
    hold_lanes,
    release_lanes,
)
from apps.providers.services.places import place_of_key
from apps.providers.services.prices import PriceEntry, add_price
from apps.providers.services.questions import (
    TestReport,
    embed_text,
    list_models,
    test_provider,
)
from apps.providers.services.rotation import (
    change_key,
    drop_new_key,
    promote_key,
    revoke_old_key,
    shadow_key,
    stage_key,
    test_key,
)

__all__ = [
    "add_price",
    "add_provider",
    "change_key",
    "Fallback",
    "GenerateRequest",
    "Generated",
    "ModelEntry",
    "PriceEntry",
    "ProviderEntry",
    "TestReport",
    "LONGEST_HOLD",
    "close_breaker",
    "drop_new_key",
    "promote_key",
    "revoke_old_key",
    "shadow_key",
    "stage_key",
    "test_key",
    "embed_text",
    "generate",
    "hold_lanes",
    "list_models",
    "place_of_key",
    "release_lanes",
    "remove_provider",
    "remove_route",
    "save_model",
    "save_provider",
    "save_route",
    "set_enabled",
    "sync_from_env",
    "test_provider",
    "trust_key",
    "warm_up",
]
