"""The verbs of providers."""

from apps.providers.engine.plan import Fallback
from apps.providers.services.generation import Generated, GenerateRequest, generate

__all__ = ["Fallback", "GenerateRequest", "Generated", "generate"]
