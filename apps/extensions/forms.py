"""What a person types about an extension, parsed; the services judge it."""

from typing import IO, Any

from django.http import QueryDict

from apps.common.errors import FieldProblem, Invalid
from apps.extensions import services
from apps.extensions.engine import packages, store

RISK_NAMES = ("riskLevel", "sideEffects", "dataEgress")


def read_verdict(form: QueryDict) -> services.Verdict:
    """Read a review. Shape: risk fields stand as "<name>:<capabilityId>"."""
    risks: dict[str, dict[str, Any]] = {}
    for name in form:
        kind, _, capability = name.partition(":")
        if capability and kind in RISK_NAMES and form[name]:
            risks.setdefault(capability, {})[kind] = form[name]
    for capability, said in risks.items():
        said["reason"] = form.get(f"reason:{capability}", "")
    return services.Verdict(
        definition_hash=form.get("definition_hash", ""),
        approve=form.get("answer") == "approve",
        trust=form.get("trust", "sandboxed"),
        reason=form.get("reason", ""),
        risks=risks,
    )


def read_package(file: IO[bytes] | None) -> store.Files:
    """Read an uploaded zip. Raises: Invalid, PackageRefused."""
    if file is None:
        raise Invalid(
            "Choose a zip.", fields=(FieldProblem("archive", "missing", "a zip"),)
        )
    return packages.from_zip(file.read())


def read_server(form: QueryDict) -> services.NewServer:
    """Read an MCP server: one argument of the command a line."""
    command = [line.strip() for line in form.get("command", "").splitlines()]
    url = form.get("url", "").strip()
    domains = form.get("domains", "").split()
    return services.NewServer(
        extension_id=form.get("extension_id", "").strip(),
        title=form.get("title", "").strip(),
        command=tuple(line for line in command if line),
        url=url,
        grants={"domains": domains} if domains else {},
        origin=services.Origin(source=url or " ".join(command)),
    )
