"""Thirty-odd skills that mean harm, each a few lines, and what each must not do.

They run under small limits, so that a failure of the sandbox is a failed test and
not a lost machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from apps.access.models import Principal
from apps.extensions import ports
from apps.gateway import services as gateway
from apps.gateway.models import Call
from apps.gateway.ports import CallKind, CallRequest, EffectClass, Lineage, Risk

SMALL = ports.Limits(
    call_seconds=5.0,
    output_bytes=65_536,
    memory_bytes=96 * 1_048_576,
    processes=16,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A script, and what the ledger says of it: a state, a word, or an output."""

    name: str
    script: str
    says: str = ""
    output: Any = None
    limits: ports.Limits = SMALL

    @property
    def is_harmless_answer(self) -> bool:
        return not self.says


def report(body: str) -> str:
    """Make a script that tries something and tells what became of it."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return (
        "import json, os, socket, sys, subprocess, time\n"
        f"def attempt():\n{lines}\n"
        "try:\n    got = attempt()\nexcept BaseException as error:\n"
        "    got = type(error).__name__\nprint(json.dumps({'got': got}))\n"
    )


def source(folder: Any, **more: Any) -> ports.Source:
    return ports.Source(
        extension_id=more.pop("extension_id", uuid4()),
        ext_id=more.pop("ext_id", "hostile"),
        transport=ports.Transport.SCRIPT,
        folder=folder,
        limits=more.pop("limits", SMALL),
        **more,
    )


def execute(by: Principal, target: ports.Target, arguments: Any = None) -> Any:
    """Run one capability through the gateway, as a turn does."""
    runtime = ports.find_runtime(target.source.transport)
    assert runtime is not None
    given = arguments or {}
    context = ports.ToolContext(
        principal=by, workspace_id=by.workspace_id, lineage=Lineage(), scope={}
    )
    extension_id, _, _ = target.capability.partition("/")
    request = CallRequest(
        kind=CallKind.TOOL,
        capability=target.capability,
        principal=by,
        workspace_id=by.workspace_id,
        arguments=given,
        perform=lambda permit: runtime.execute(target, given, permit, context),
        effect_class=target.effect_class,
        risk=Risk("read"),
        scope={"allowed": {extension_id: ["*"]}},
    )
    return gateway.call(request).output


def target(source: ports.Source, name: str, **more: Any) -> ports.Target:
    more.setdefault("effect_class", EffectClass.PURE)
    capability = more.pop("capability", f"{source.ext_id}/{name.partition('.')[0]}")
    return ports.Target(source=source, name=name, capability=capability, **more)


def row_of(capability: str) -> Call:
    return Call.objects.get(capability=capability)


def write(folder: Any, files: dict[str, str]) -> Any:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


Execute = Callable[..., Any]
Id = UUID
