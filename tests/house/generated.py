"""What is drawn from the code and kept in the repository.

`python -m tests.house.regenerate` writes it; tests compare it.
"""

import importlib
import json
import pkgutil
from pathlib import Path

import apps as ours
from apps.common.states import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
STATES = ROOT / "docs" / "states"
OPENAPI = ROOT / "tests" / "house" / "openapi.json"


def diagrams() -> dict[str, str]:
    """Draw every lifecycle. Shape: file name to text."""
    _import_everything()
    return {f"{name}.md": _page(name) for name in sorted(REGISTRY)}


def _page(name: str) -> str:
    table = REGISTRY[name]
    ends = ", ".join(f"`{state}`" for state in sorted(table.terminal)) or "none"
    return (
        f"# Lifecycle: {name}\n\n"
        "Drawn from the transition table in the code; do not edit by hand.\n\n"
        f"```mermaid\n{table.mermaid()}```\n\n"
        f"Starts as `{table.initial}`. Nothing leaves: {ends}.\n"
    )


def _import_everything() -> None:
    """A table registers itself when its module is imported."""
    for found in pkgutil.walk_packages(ours.__path__, "apps."):
        room = found.name.split(".")[2:3]
        if room in (["models"], ["engine"], ["states"], ["policies"]):
            importlib.import_module(found.name)


def openapi() -> str:
    """Describe the API as it is now. Shape: JSON text, keys sorted."""
    api = importlib.import_module("polar_site.api").api
    schema = api.get_openapi_schema(path_prefix="/api/v1/")
    return json.dumps(schema, indent=1, sort_keys=True, default=str) + "\n"
