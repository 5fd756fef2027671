from collections.abc import Callable
from typing import Any

import pytest

from apps.access.models import Principal, Workspace
from apps.extensions import services
from apps.extensions.models import Extension
from apps.gateway.ports import Lineage
from apps.gateway.services import Outcome

SCOPE = {"allowed": {"polar": ["*"]}}


@pytest.fixture
def plugin(workspace: Workspace) -> Extension:
    """The shipped plugin, as a fresh install has it."""
    return services.sync_shipped_plugin(version="1")


@pytest.fixture
def run(rob: Principal, plugin: Extension) -> Callable[..., Outcome]:
    """Rob runs a tool."""

    def call(alias: str, arguments: Any, **more: Any) -> Outcome:
        request = {"scope": SCOPE, "lineage": Lineage(agent="rob"), **more}
        return services.execute_tool(
            alias=alias,
            arguments=arguments,
            principal=rob,
            workspace_id=rob.workspace_id,
            **request,
        )

    return call
