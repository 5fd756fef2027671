"""Fixtures of the whole suite: the cast, and no network."""

from collections.abc import Iterator

import pytest

from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace
from tests import network, people


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Block everything but loopback and Unix sockets, from first test to last."""
    with network.blocked():
        yield


@pytest.fixture
def workspace(db: None) -> Workspace:
    """The workspace of a fresh install."""
    return access.ensure_default_workspace()


@pytest.fixture
def alice(workspace: Workspace) -> User:
    """Alice operates."""
    return people.person("alice", Role.OPERATOR, workspace)


@pytest.fixture
def bob(workspace: Workspace) -> User:
    """Bob approves."""
    return people.person("bob", Role.APPROVER, workspace)


@pytest.fixture
def charlie(db: None) -> User:
    """Charlie is outside."""
    return people.outsider("charlie")


@pytest.fixture
def rob(workspace: Workspace) -> Principal:
    """Rob is an agent."""
    return people.agent("rob", workspace)
