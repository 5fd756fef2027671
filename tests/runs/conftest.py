"""What the tests of runs share: a way to enqueue, and kinds that end as told."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Principal, Workspace
from apps.runs import ports, services
from apps.runs.engine.claim import Claimed, claim
from apps.runs.engine.executor import carry
from apps.runs.engine.leases import LeaseKeeper
from apps.runs.models import Run

Enqueue = Callable[..., Run]
Handle = Callable[[ports.Handler], None]

KIND = "test.work"


@pytest.fixture
def system(db: None) -> Principal:
    return access.system_principal()


@pytest.fixture
def enqueue(workspace: Workspace, system: Principal) -> Enqueue:
    """Put a run of the test kind into the queue."""

    def put(**options: Any) -> Run:
        given: dict[str, Any] = {"kind": KIND, "payload": {}, **options}
        return services.enqueue(principal=system, workspace=workspace, **given)

    return put


@pytest.fixture
def handle() -> Iterator[Handle]:
    """Plug in the handler of the test kind for one test."""

    def plug(handler: ports.Handler) -> None:
        ports.handlers.register(KIND, handler)

    yield plug
    ports.handlers._kinds.pop(KIND, None)


@pytest.fixture
def keeper() -> LeaseKeeper:
    return LeaseKeeper(queues=("default",), concurrency=4)


@pytest.fixture
def carry_one(keeper: LeaseKeeper) -> Callable[[], Run | None]:
    """Claim the next run and carry it to its outcome."""

    def go() -> Run | None:
        taken = claim_some(1)
        if not taken:
            return None
        carry(taken[0], keeper)
        return Run.objects.get(id=taken[0].id)

    return go


def claim_some(limit: int = 10, owner: str = "w1") -> list[Claimed]:
    return claim(owner=owner, queues=["default"], limit=limit)
