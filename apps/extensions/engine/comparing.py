"""What a person must see before approving: the difference, new rights, tricks.

Hides: how two manifests are compared. Invariants: nothing here decides; text from
strangers is returned as text and never as markup.
"""

import difflib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from apps.common import shapes
from apps.extensions.models import Capability
from apps.gateway.ports import Json

from . import drafts

#: Longer descriptions are worth a look; a model reads `queries.LONGEST_TOLD` of them.
LONG_DESCRIPTION = 2_000
_RANK = {"unknown": 3, "destructive": 2, "write": 1, "read": 0}
_INVISIBLE = {"Cf", "Cc", "Co", "Cn", "Cs"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a drawn difference. `kind`: at, del, add, or "" for context."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What an extension may do with one form that it could not with another."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    riskier: list[str] = field(default_factory=list)
    rights: list[str] = field(default_factory=list)
    rights_lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.rights)


def diff(before: Json, after: Json) -> list[Line]:
    """Draw the difference of two manifests, line by line."""
    old, new = _text(before), _text(after)
    lines = difflib.unified_diff(old, new, lineterm="", n=2)
    kinds = {"+": "add", "-": "del", "@": "at"}
    return [
        Line(kinds.get(line[:1], ""), line if line[:1] == "@" else line[1:])
        for line in lines
        if not line.startswith(("+++", "---"))
    ]


def delta(before: Json, after: Json) -> Delta:
    """Name the rights that `after` has and `before` had not, and the tricks."""
    old = {each["capabilityId"]: each for each in before.get("capabilities", ())}
    new = {each["capabilityId"]: each for each in after.get("capabilities", ())}
    both = [name for name in new if name in old]
    had, has = _rights(before), _rights(after)
    return Delta(
        added=sorted(set(new) - set(old)),
        removed=sorted(set(old) - set(new)),
        changed=[name for name in both if old[name] != new[name]],
        riskier=[name for name in both if _is_riskier(old[name], new[name])],
        rights=sorted(has - had),
        rights_lost=sorted(had - has),
        unknown=[name for name in new if new[name]["riskLevel"] == "unknown"],
        warnings=[*_tricks(after), *_shadows(after)],
    )


def _text(manifest: Json) -> list[str]:
    return (
        json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=True).splitlines()
        if manifest
        else []
    )


def _is_riskier(old: Json, new: Json) -> bool:
    if _RANK[new["riskLevel"]] > _RANK[old["riskLevel"]]:
        return True
    harmless = {"none", "internal"}
    return any(
        old[name] in harmless and new[name] not in harmless for name in drafts.RISKS[1:]
    )


def _rights(manifest: Json) -> set[str]:
    grants = manifest.get("grants") or {}
    said = {
        "domains": "reaches",
        "readPaths": "reads",
        "writePaths": "writes",
        "local": "reaches the private address",
    }
    rights = {
        f"{words} {each}"
        for name, words in said.items()
        for each in grants.get(name, ())
    }
    rights |= {
        f"is given the secret {name} as {variable}"
        for variable, name in (grants.get("secrets") or {}).items()
    }
    for part in manifest.get("parts", ()):
        if part.get("command"):
            rights.add(f"starts {' '.join(part['command'])}")
        if part.get("url"):
            rights.add(f"is asked at {part['url']}")
    if manifest.get("degraded"):
        rights.add("runs where isolation is not available")
    return rights


def _tricks(manifest: Json) -> Iterable[str]:
    for each in manifest.get("capabilities", ()):
        name, text = each["capabilityId"], f"{each['title']}{each['description']}"
        hidden = sorted({char for char in text + name if _is_hidden(char)})
        if hidden:
            shown = ", ".join(f"U+{ord(char):04X}" for char in hidden[:6])
            yield f"{name} hides characters in its text: {shown}"
        if len(each["description"]) > LONG_DESCRIPTION:
            yield f"{name} has a description of {len(each['description'])} characters"
        for pattern in shapes.unchecked([each["inputSchema"], each["outputSchema"]]):
            yield f"{name} has a pattern that Polar leaves to it: {pattern[:80]}"
    for left in manifest.get("notRun", ()):
        yield f"{left['name']} is not run: {left['why']}"


def _is_hidden(char: str) -> bool:
    return char not in "\n\t\r" and unicodedata.category(char) in _INVISIBLE


def _shadows(manifest: Json) -> Iterable[str]:
    """A tool that goes by the name of another extension's."""
    mine = {
        _plain(each["target"] or each["capabilityId"]): each["capabilityId"]
        for each in manifest.get("capabilities", ())
        if each["riskBy"] != "code"
    }
    others = Capability.objects.filter(is_current=True).exclude(
        extension__ext_id=manifest.get("extensionId", "")
    )
    for other in others.select_related("extension").order_by("alias"):
        if other.risk_by == "code" and other.extension.type != "plugin":
            continue
        name = _plain(other.target or other.capability_id)
        if name in mine:
            yield f"{mine[name]} goes by the name of {other.name}"


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in folded if char.isalnum())
