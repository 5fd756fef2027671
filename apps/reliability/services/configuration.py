"""Every setting as one document: get, set, compare, export, import.

Invariants: a document holds no secret and reads the same wherever it was made;
importing it is all or nothing, and a second time changes nothing. The version of
an entry is a digest of what it says, so it is right whichever door changed it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from pydantic import ValidationError

from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.audit import ports as audit_ports
from apps.audit import services as audit
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.common.schemas import In
from apps.extensions.models import Extension, Lifecycle
from apps.providers.models import Provider
from apps.reliability.services import reach
from apps.reliability.services.sections import SECTIONS, Section

audit_ports.declare("config.set", "config.imported")

FORMAT = "polar-config/1"
LONGEST_KEY = 200

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting as everybody reads it."""

    section: str
    key: str
    version: str
    value: Json


@dataclass(frozen=True, slots=True)
class Change:
    """What one entry of a document would change here."""

    section: str
    key: str
    kind: str
    fields: tuple[str, ...]


def get_config(*, by: Principal, section: str, key: str) -> Entry:
    """Return one setting. Raises: RoleRequired below operator; NotFound."""
    _check_reader(by)
    found = _section(section).read().get(key)
    if found is None:
        raise NotFound(f"There is no setting {section}.{key[:LONGEST_KEY]}.")
    return _entry(section, key, found)


def list_configs(*, by: Principal, section: str = "") -> list[Entry]:
    """Return every setting, in the order of the document."""
    _check_reader(by)
    chosen = [_section(section)] if section else SECTIONS.values()
    return [
        _entry(each.name, key, found)
        for each in chosen
        for key, found in sorted(each.read().items())
    ]


@transaction.atomic
def upsert_config(
    *,
    by: Principal,
    section: str,
    key: str,
    value: Mapping[str, Any],
    expected_version: str | None = None,
) -> Entry:
    """Set what `value` names of one entry; the rest stays as it is.

    Raises: RoleRequired below admin; Invalid naming the field; Conflict when it
    changed meanwhile ("" expects that it does not exist).   Again: the same.
    """
    _check_writer(by)
    chosen = _section(section)
    _hold_still()
    before = chosen.read().get(key)
    version = _entry(section, key, before).version if before else ""
    if expected_version is not None and expected_version != version:
        raise Conflict(f"{section}.{key} is at version {version or 'none'}.")
    merged = _plain(before) | dict(value) if before else dict(value)
    entry = _parse(chosen, key, merged)
    if before is None or _plain(entry) != _plain(before) or _carries_secret(entry):
        chosen.write(by, key, entry)
        _record(by, "config.set", section=section, key=key, fields=sorted(value))
    return _entry(section, key, chosen.read()[key])


def export_config(*, by: Principal) -> Json:
    """Return all settings as one document that one can keep beside the code."""
    _check_reader(by)
    sealed = Provider.objects.filter(secret__isnull=False).order_by("slug")
    return {
        "format": FORMAT,
        "secrets": [f"providers.{row.slug}.key" for row in sealed]
        + sorted(reach.secrets_of_channels()),
        "extensions": _extensions(),
        "sections": {
            section.name: {
                key: _plain(entry) for key, entry in sorted(section.read().items())
            }
            for section in SECTIONS.values()
        },
    }


def as_text(document: Json) -> str:
    """Write a document the same way every time, one field a line."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse_document(text: str) -> Json:
    """Read a document. Raises: Invalid for text that is no JSON object."""
    try:
        document = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"This is no JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise Invalid("A configuration is a JSON object.")
    return document


def diff_config(*, by: Principal, document: Mapping[str, Any]) -> list[Change]:
    """Tell what an import would change. Writes nothing."""
    _check_reader(by)
    return [change for change, _ in _plan(document)]


@transaction.atomic
def import_config(*, by: Principal, document: Mapping[str, Any]) -> list[Change]:
    """Make the settings say what the document says; what it leaves out stays.

    Raises: as `upsert_config`; nothing is kept of a document that fails.
    Again: changes nothing and leaves no event.
    """
    _check_writer(by)
    _hold_still()
    plan = _plan(document)
    for change, entry in plan:
        SECTIONS[change.section].write(by, change.key, entry)
    if plan:
        _record(
            by, "config.imported", changed=[f"{c.section}.{c.key}" for c, _ in plan]
        )
    return [change for change, _ in plan]


def secrets_to_enter(document: Mapping[str, Any]) -> list[str]:
    """Name the secrets that the document's install had and this one lacks."""
    named = document.get("secrets", [])
    held = Provider.objects.filter(secret__isnull=False)
    here = {f"providers.{slug}.key" for slug in held.values_list("slug", flat=True)}
    here |= set(reach.secrets_of_channels())
    return sorted(each for each in named if isinstance(each, str) and each not in here)


def extensions_to_review(document: Mapping[str, Any]) -> list[str]:
    """Name the extensions that are not here as the document has them.

    An extension is code, reviewed by a person on each install: a document names it
    and never brings or enables it.
    """
    named, here = document.get("extensions", {}), _extensions()
    if not isinstance(named, dict):
        return []
    return sorted(key for key, facts in named.items() if here.get(key) != facts)


def _extensions() -> Json:
    rows = Extension.objects.exclude(lifecycle=Lifecycle.REMOVED).order_by("ext_id")
    return {
        row.ext_id: {
            "type": row.type,
            "source": row.source,
            "revision": row.revision,
            "definition": row.definition_hash,
            "trust": row.trust,
            "lifecycle": row.lifecycle,
        }
        for row in rows
    }


def _plan(document: Mapping[str, Any]) -> list[tuple[Change, In]]:
    """Compare entry by entry, in the order in which they are written."""
    if document.get("format") != FORMAT:
        problem = FieldProblem("format", "unknown", FORMAT)
        raise Invalid("This is no configuration of Polar.", fields=(problem,))
    wanted = document.get("sections")
    if not isinstance(wanted, dict):
        raise Invalid("A configuration has sections.")
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        expected = ", ".join(SECTIONS)
        problem = FieldProblem("sections", f"unknown: {unknown[0]!r}", expected)
        raise Invalid("This configuration has unknown sections.", fields=(problem,))
    plan = []
    for section in SECTIONS.values():
        entries = wanted.get(section.name, {})
        if not isinstance(entries, dict):
            raise Invalid(f"The section {section.name} is not a table of entries.")
        here = section.read()
        for key, value in sorted(entries.items()):
            entry = _parse(section, key, value)
            if key not in here and section.waits(entry):
                continue
            before = _plain(here[key]) if key in here else {}
            after = _plain(entry)
            if before == after and not _carries_secret(entry):
                continue
            fields = tuple(sorted(n for n in after if after[n] != before.get(n)))
            kind = "changed" if before else "added"
            plan.append((Change(section.name, key, kind, fields), entry))
    return plan


def _parse(section: Section, key: str, value: Any) -> In:
    if not key or len(key) > LONGEST_KEY or not key.isprintable():
        problem = FieldProblem("key", "cannot be a key", f"1 to {LONGEST_KEY} signs")
        raise Invalid(f"This is no key of {section.name}.", fields=(problem,))
    try:
        return section.shape.model_validate(value)
    except ValidationError as error:
        fields = tuple(
            FieldProblem(
                ".".join((section.name, key, *map(str, each["loc"]))), each["msg"]
            )
            for each in error.errors(include_input=False, include_url=False)
        )
        raise Invalid(f"{section.name}.{key} is not right.", fields=fields) from error


def _carries_secret(entry: In) -> bool:
    return bool(getattr(entry, "key", "") or getattr(entry, "token", ""))


def _plain(entry: In) -> Json:
    return entry.model_dump(mode="json", by_alias=True)


def _entry(section: str, key: str, found: In) -> Entry:
    value = _plain(found)
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return Entry(section, key, digest[:16], value)


def _section(name: str) -> Section:
    if name not in SECTIONS:
        known = ", ".join(SECTIONS)
        raise NotFound(f"There is no section {name[:40]!r}; there are {known}.")
    return SECTIONS[name]


def _hold_still() -> None:
    """Let one writer of settings in at a time, until its transaction ends."""
    home = default_workspace()
    Workspace.objects.select_for_update(no_key=True).get(id=home.id)


def _check_reader(by: Principal) -> None:
    check_role(by, Role.OPERATOR, default_workspace())


def _check_writer(by: Principal) -> None:
    check_role(by, Role.ADMIN, default_workspace())


def _record(by: Principal, type: str, **data: Any) -> None:
    audit.record(type=type, actor=by.actor, data=data)
