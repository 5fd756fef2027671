"""The shape of a manifest, and what a stranger or a model may write into one.

A manifest is JSON, and everything in it is reviewed:
    {"extensionId", "extensionType", "title", "description", "version", "package",
     "parts": [{"name", "transport", "folder", "command", "url", "env", "served"}],
     "grants": {"domains", "readPaths", "writePaths", "secrets", "local"},
     "limits": {…}, "notRun": [{"name", "why"}],
     "capabilities": [{"capabilityId", "title", "description", "inputSchema",
       "outputSchema", "annotations", "part", "target", "effectClass", "riskLevel",
       "sideEffects", "dataEgress", "bulkThreshold", "riskBy", "riskReason"}]}
Whoever drafts one (a package's author, a model, an operator): this code validates
it, and a person approves it.
"""

from typing import Any

from apps.common import canonical
from apps.common.errors import FieldProblem, Invalid
from apps.common.shapes import problems_of
from apps.extensions.errors import PackageRefused
from apps.gateway.ports import EffectClass, Json

RISKS = ("riskLevel", "sideEffects", "dataEgress")
_TEXTS: Json = {"type": "array", "items": {"type": "string"}, "maxItems": 64}
_DOMAIN = r"^(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
#: Absolute, without "..", and never the root itself.
_PATH = r"^(/(?!\.\.?(/|$))[^/\x00]+)+$"

RISK_SCHEMA: Json = {
    "riskLevel": {"enum": ["read", "write", "destructive"]},
    "sideEffects": {"enum": ["none", "internal", "external"]},
    "dataEgress": {"enum": ["none", "network"]},
    "bulkThreshold": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
}
GRANTS_SCHEMA: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "domains": {**_TEXTS, "items": {"type": "string", "pattern": _DOMAIN}},
        "readPaths": {**_TEXTS, "items": {"type": "string", "pattern": _PATH}},
        "writePaths": {**_TEXTS, "items": {"type": "string", "pattern": _PATH}},
        "local": {
            **_TEXTS,
            "items": {"type": "string", "pattern": r"^[A-Za-z0-9.:\[\]-]+:\d{1,5}$"},
        },
        "secrets": {
            "type": "object",
            "maxProperties": 32,
            "propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_-]{0,79}$"},
            "additionalProperties": {"type": "string", "minLength": 1},
        },
    },
}
LIMITS_SCHEMA: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "connectSeconds": {"type": "integer", "minimum": 1, "maximum": 120},
        "callSeconds": {"type": "integer", "minimum": 1, "maximum": 540},
        "idleSeconds": {"type": "integer", "minimum": 1, "maximum": 3600},
        "outputBytes": {"type": "integer", "minimum": 1024, "maximum": 8_388_608},
        "memoryBytes": {
            "type": "integer",
            "minimum": 16_777_216,
            "maximum": 8_589_934_592,
        },
        "processes": {"type": "integer", "minimum": 1, "maximum": 1024},
    },
}
#: What `polar.json` of a package, or a drafted manifest, may say.
DRAFT_SCHEMA: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "version": {"type": "string", "maxLength": 40},
        "grants": GRANTS_SCHEMA,
        "limits": LIMITS_SCHEMA,
        "capabilities": {
            "type": "object",
            "maxProperties": 200,
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    **RISK_SCHEMA,
                    "title": {"type": "string", "maxLength": 160},
                    "description": {"type": "string", "maxLength": 4000},
                    "inputSchema": {"type": "object"},
                    "outputSchema": {"type": "object"},
                    "isIdempotent": {"type": "boolean"},
                },
            },
        },
    },
}


def check(value: Any, schema: Json, name: str) -> None:
    """Raises: PackageRefused naming every field that is wrong."""
    problems = problems_of(value, schema)
    if problems:
        first = problems[0]
        raise PackageRefused(
            f"{name} is wrong at {first.path}: {first.problem}.", fields=tuple(problems)
        )


def read_draft(data: bytes, name: str = "polar.json") -> Json:
    """Read and validate a drafted manifest. Raises: PackageRefused."""
    try:
        draft = canonical.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, RecursionError, Invalid) as error:
        raise PackageRefused(
            f"{name} is not JSON.", fields=(FieldProblem(name, "not JSON", "JSON"),)
        ) from error
    check(draft, DRAFT_SCHEMA, name)
    return dict(draft)


def capability(capability_id: str, **known: Any) -> Json:
    """Make one capability of a manifest; its risk is unknown until somebody says."""
    return {
        "capabilityId": capability_id,
        "title": "",
        "description": "",
        "inputSchema": {"type": "object"},
        "outputSchema": {},
        "annotations": {},
        "part": "",
        "target": "",
        "effectClass": str(EffectClass.NON_REPEATABLE),
        "riskLevel": "unknown",
        "sideEffects": "none",
        "dataEgress": "none",
        "bulkThreshold": 50,
        "riskBy": "",
        "riskReason": "",
        **known,
    }


def apply_draft(manifest: Json, draft: Json, *, by: str) -> None:
    """Let a draft complete a manifest: grants, limits, risks and schemas.

    Raises: PackageRefused for a capability that the package does not have.
    """
    known = {each["capabilityId"]: each for each in manifest["capabilities"]}
    for name, said in (draft.get("capabilities") or {}).items():
        if name not in known:
            raise PackageRefused(
                f"The manifest names {name!r}, which is not in the package.",
                fields=(
                    FieldProblem(f"capabilities.{name}", "unknown", "; ".join(known)),
                ),
            )
        one = known[name]
        one |= {key: said[key] for key in said if key != "isIdempotent"}
        if said.get("riskLevel"):
            one |= {"riskBy": by, "riskReason": f"declared by the {by}"}
            one["effectClass"] = effect_class(
                said["riskLevel"], is_idempotent=bool(said.get("isIdempotent"))
            )
    manifest["grants"] = {**manifest["grants"], **(draft.get("grants") or {})}
    manifest["limits"] = {**manifest["limits"], **(draft.get("limits") or {})}
    manifest["version"] = draft.get("version") or manifest["version"]


def effect_class(risk_level: str, *, is_idempotent: bool = False) -> str:
    """What a repeat would do, as far as anybody has said."""
    if risk_level == "read":
        return str(EffectClass.PURE)
    keyed = EffectClass.KEYED if is_idempotent else EffectClass.NON_REPEATABLE
    return str(keyed)
