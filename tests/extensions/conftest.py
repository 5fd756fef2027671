from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings

from apps.access.models import Principal, Role, User, Workspace
from apps.extensions import ports, services
from apps.extensions.errors import DefinitionChanged
from apps.extensions.models import Extension
from apps.gateway.ports import Lineage, Result
from apps.gateway.services import Outcome
from tests import people

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


SKILL_MD = """---
name: invoices
description: Read invoices and add them up.
metadata:
  version: "1.2"
---
# Invoices
Run scripts/add.py with the numbers.
"""
SKILL = {"SKILL.md": SKILL_MD.encode(), "scripts/add.py": b"print(1)\n"}
HARMLESS = {
    "riskLevel": "read",
    "sideEffects": "none",
    "dataEgress": "none",
    "reason": "adds numbers",
}
ORIGIN = services.Origin(source="https://example.org/invoices", revision="abc123")


@pytest.fixture(autouse=True)
def content_store(tmp_path: Path) -> Iterator[Path]:
    """Packages of a test are kept in a folder of its own."""
    before = settings.POLAR_EXTENSIONS_DIR
    settings.POLAR_EXTENSIONS_DIR = tmp_path / "extensions"
    yield settings.POLAR_EXTENSIONS_DIR
    settings.POLAR_EXTENSIONS_DIR = before


@pytest.fixture
def ada(workspace: Workspace) -> User:
    """Ada administers."""
    return people.person("ada", Role.ADMIN, workspace)


class FakeRuntime:
    """A runtime that keeps the seam's contract and counts what really happens."""

    def __init__(self) -> None:
        self.served = ports.Definition()
        self.sources: list[ports.Source] = []
        self.targets: list[ports.Target] = []
        self.stopped: list[UUID] = []
        self.terminations: list[ports.Termination] = []
        self.before_send: Callable[[], None] = lambda: None

    def describe(self, source: ports.Source) -> ports.Definition:
        self.sources.append(source)
        return self.served

    def execute(self, target, arguments, permit, context):
        if target.pinned and target.pinned != self.served.digest:
            raise DefinitionChanged(
                f"{target.capability} is served in another form.", served=self.served
            )
        self.before_send()
        permit.spend(arguments)
        self.targets.append(target)
        return Result({"did": target.name})

    def stop(self, extension_id: UUID) -> list[ports.Termination]:
        self.stopped.append(extension_id)
        return self.terminations

    def serve(self, *offers: ports.Offer) -> None:
        self.served = ports.Definition(offers=offers, server={"name": "orders"})

    def change(self, offer: str, **changes: Any) -> None:
        offers = [
            replace(each, **changes) if each.name == offer else each
            for each in self.served.offers
        ]
        self.serve(*offers)


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    """Plugged in for scripts and servers, in place of what runs real ones."""
    before = dict(ports._runtimes)
    fake = FakeRuntime()
    for transport in ("script", "stdio", "http"):
        ports.plug_runtime(ports.Transport(transport), fake)
    fake.serve(
        ports.Offer(name="find", description="Find an order.", input_schema=ANY),
        ports.Offer(name="cancel", description="Cancel an order.", input_schema=ANY),
    )
    yield fake
    ports._runtimes.clear()
    ports._runtimes.update(before)


ANY = {"type": "object", "properties": {"id": {"type": "string"}}}


@pytest.fixture
def skill(alice: User) -> Extension:
    """A skill, taken in and not reviewed."""
    return services.install_skill(by=alice.principal, files=SKILL, origin=ORIGIN)


def approve(row: Extension, by: User, **more: Any) -> Extension:
    verdict = services.Verdict(
        definition_hash=row.definition_hash,
        approve=True,
        **{"reason": "read it", **more},
    )
    return services.review_extension(
        by=by.principal, extension_id=row.id, verdict=verdict
    )


def enable(row: Extension, by: User) -> Extension:
    return services.enable_extension(
        by=by.principal, extension_id=row.id, reason="ready"
    )


@pytest.fixture
def orders(ada: User, bob: User, runtime: FakeRuntime) -> Extension:
    """An MCP server, reviewed and enabled."""
    new = services.NewServer(extension_id="orders", command=("/opt/orders", "--stdio"))
    row = services.sync_mcp_server(by=ada.principal, new=new, reason="orders desk")
    risks = {"find": HARMLESS, "cancel": {**HARMLESS, "riskLevel": "destructive"}}
    return enable(approve(row, bob, risks=risks, trust="reviewed"), bob)


@pytest.fixture
def call(rob: Principal) -> Callable[..., Outcome]:
    """Rob calls any tool of an extension."""

    def run(alias: str, arguments: Any = None, **more: Any) -> Outcome:
        ext_id = alias.partition("__")[0]
        request = {
            "scope": {"allowed": {ext_id: ["*"]}},
            "lineage": Lineage(agent="rob"),
            **more,
        }
        return services.execute_tool(
            alias=alias,
            arguments=arguments or {},
            principal=rob,
            workspace_id=rob.workspace_id,
            **request,
        )

    return run
