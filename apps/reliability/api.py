"""Health over the API, with details for those who may see them."""

from typing import Any

from django.http import HttpRequest
from ninja import Router

from apps.access.policies import caller
from apps.common.schemas import PROBLEMS, Out

from .queries import readiness

router = Router(tags=["health"], by_alias=True)


class CheckOut(Out):
    name: str
    is_ok: bool
    detail: str


@router.get("/health", response={200: list[CheckOut]} | PROBLEMS, operation_id="health")
def health(request: HttpRequest) -> list[Any]:
    caller(request, "runs:read")
    return list(readiness())
