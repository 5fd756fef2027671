"""Taking in skills, plugins and MCP servers. Installing runs nothing that is not ours;
asking an MCP server what it offers starts it in the sandbox, by an administrator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction

from apps.access.models import Principal, Role
from apps.common.errors import Conflict, FieldProblem, Invalid
from apps.extensions import policies, ports
from apps.extensions.engine import (
    bundles,
    connections,
    definition,
    drafts,
    sources,
    store,
)
from apps.extensions.errors import AdapterMissing, AuthorizationWanted
from apps.extensions.models import (
    LIFECYCLE_TRANSITIONS,
    Extension,
    Lifecycle,
    Trust,
)
from apps.extensions.queries import get_extension
from apps.gateway import services as gateway
from apps.gateway.ports import Json

from .guarded import check_may, check_reason, decide, keep_version, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a package or a server comes from."""

    source: str
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewServer:
    """An MCP server as an operator describes it: a command or a URL."""

    extension_id: str
    title: str = ""
    command: tuple[str, ...] = ()
    url: str = ""
    env: dict[str, str] = field(default_factory=dict)
    grants: Json = field(default_factory=dict)
    limits: Json = field(default_factory=dict)
    origin: Origin = field(default_factory=lambda: Origin(source="by hand"))


def install_skill(
    *, by: Principal, files: store.Files, origin: Origin, draft: Json | None = None
) -> Extension:
    """Take in an Agent Skills package; it waits for a review.

    `draft` is a manifest that somebody (a model, too) proposes: validated here,
    approved with the review.   Again: the same package changes nothing.
    Raises: RoleRequired below operator; PackageRefused; Conflict.
    """
    return _install(by, bundles.skill(files), files, origin, draft)


def install_plugin(
    *, by: Principal, files: store.Files, origin: Origin, draft: Json | None = None
) -> Extension:
    """Take in a plugin bundle: its skills, and its MCP servers once they are synced.

    Commands, agents and hooks are listed as not run.
    Raises: RoleRequired below operator, below admin with a server that is started
    by a command; PackageRefused; Conflict.
    """
    manifest = bundles.plugin(files)
    for part in manifest["parts"]:
        if part["transport"] in ports.SERVED:
            _check_server(by, tuple(part["command"]), part["url"])
    return _install(by, manifest, files, origin, draft)


def sync_mcp_server(
    *,
    by: Principal,
    new: NewServer | None = None,
    extension_id: UUID | None = None,
    reason: str,
) -> Extension:
    """Ask an MCP server what it offers and keep exactly that, to be reviewed.

    With `new` a server is taken in or described anew; with `extension_id` the
    servers of one that is installed are asked again.
    Raises: RoleRequired below approver, below admin for a command; AdapterMissing;
    what the server's runtime raises.
    Again: an unchanged server changes nothing and stays reviewed.
    """
    check_may(by, Role.APPROVER)
    check_reason(reason)
    if new is not None:
        _check_server(by, new.command, new.url)
        row = _draft_server(by, new)
    else:
        assert extension_id is not None
        row = get_extension(extension_id)
        _check_present(row)
    parts = [each["name"] for each in row.parts if each["transport"] in ports.SERVED]
    if not parts:
        raise Invalid(f"{row.ext_id} has no MCP server to ask.")
    for name in parts:
        row = _sync_part(by, row, name, reason)
    return row


def configure_extension(
    *, by: Principal, extension_id: UUID, changes: Json, reason: str
) -> Extension:
    """Change what an extension may reach, or when it is cut off: a new form.

    Shape: changes may hold grants, limits, degraded.
    Raises: RoleRequired below approver; PackageRefused.
    """
    check_may(by, Role.APPROVER)
    check_reason(reason)
    row = get_extension(extension_id)
    _check_present(row)
    unknown = set(changes) - {"grants", "limits", "degraded"}
    if unknown or not row.parts:
        raise Invalid("Only grants, limits and degraded of an installed extension.")
    manifest = {**definition.manifest_of(row), **changes}
    definition.check(manifest)
    arguments = {"extensionId": row.ext_id, "reason": reason, "changes": changes}

    def write() -> Extension:
        if "degraded" in changes:
            row.degraded_reason = reason.strip() if changes["degraded"] else ""
        return _take_in(row, manifest, by, "upgraded")

    return decide(by, "configure", arguments, write)


def _install(
    by: Principal,
    manifest: Json,
    files: store.Files,
    origin: Origin,
    draft: Json | None,
) -> Extension:
    check_may(by, Role.OPERATOR)
    if draft is not None:
        drafts.check(draft, drafts.DRAFT_SCHEMA, "manifest")
        drafts.apply_draft(manifest, draft, by="draft")
    definition.check(manifest)
    row = _row_of(manifest)
    arguments = {
        "extensionId": manifest["extensionId"],
        "package": manifest["package"],
        "source": origin.source[:500],
        "revision": origin.revision[:120],
    }

    def write() -> Extension:
        store.put(files)
        row.source, row.revision = origin.source[:500], origin.revision[:120]
        return _take_in(row, _keep_risks(row, manifest), by, _verb(row))

    return decide(by, _verb(row).removesuffix("ed"), arguments, write)


def _verb(row: Extension) -> str:
    return (
        "installed" if row._state.adding or row.lifecycle == "removed" else "upgraded"
    )


def _row_of(manifest: Json) -> Extension:
    """The extension of this name, or a new one. Raises: Conflict."""
    name = manifest["extensionId"]
    if name == ports.SHIPPED:
        raise Conflict(f"{name!r} is the name of what ships with Polar.")
    found = Extension.objects.filter(ext_id=name).first()
    if found is None:
        return Extension(ext_id=name, type=manifest["extensionType"])
    if found.type != manifest["extensionType"]:
        raise Conflict(f"{name} is already there, as a {found.type}.")
    return found


def _keep_risks(row: Extension, manifest: Json) -> Json:
    """What an operator said of a capability stays said, where it reads the same."""
    if row._state.adding:
        return manifest
    known = {
        each["capabilityId"]: each
        for each in definition.manifest_of(row)["capabilities"]
    }
    said = (*drafts.RISKS, "bulkThreshold", "effectClass", "riskBy", "riskReason")
    for each in manifest["capabilities"]:
        before = known.get(each["capabilityId"])
        if before and each["riskLevel"] == "unknown" and before["part"] == each["part"]:
            each |= {key: before[key] for key in said}
    manifest["grants"] = manifest["grants"] or row.grants
    manifest["limits"] = manifest["limits"] or row.limits
    manifest["degraded"] = row.accepts_degraded
    return manifest


@transaction.atomic
def _take_in(row: Extension, manifest: Json, by: Principal, verb: str) -> Extension:
    """Make the rows say what the manifest says; only an approved form may run on."""
    gateway.hold_starts(f"extension:{row.ext_id}")
    before = row.definition_hash
    if row._state.adding:
        row.save(force_insert=True)
    elif not Extension.objects.filter(id=row.id, definition_hash=before).exists():
        raise Conflict(f"{row.ext_id} has just become another form; look again.")
    definition.write(row, manifest)
    row.definition_hash = keep_version(row)
    if row.definition_hash != row.reviewed_hash:
        row.reviewed_hash = ""
    row.lifecycle = _settled(row)
    row.save()
    if before == row.definition_hash and verb == "upgraded":
        return row
    facts = {
        "before": before,
        "after": row.definition_hash,
        "package": row.package,
        "source": row.source,
        "revision": row.revision,
    }
    record(row, by, verb, data=facts)
    return row


def _settled(row: Extension) -> Lifecycle:
    """Where a form that nobody approved yet stands."""
    state = Lifecycle(row.lifecycle)
    if state == Lifecycle.REMOVED:
        LIFECYCLE_TRANSITIONS.check(state, Lifecycle.PENDING_INSTALL)
        state = Lifecycle.PENDING_INSTALL
        row.trust = Trust.SANDBOXED if row.trust != Trust.BLOCKED else row.trust
    if state == Lifecycle.PENDING_INSTALL:
        LIFECYCLE_TRANSITIONS.check(state, Lifecycle.INSTALLED)
        return Lifecycle.INSTALLED
    if state == Lifecycle.ENABLED and not row.is_pinned:
        LIFECYCLE_TRANSITIONS.check(state, Lifecycle.DISABLED)
        return Lifecycle.DISABLED
    return state


# --- MCP servers


def _check_server(by: Principal, command: tuple[str, ...], url: str) -> None:
    """A command is a program on this host: an administrator's word, no shell."""
    check_may(by, Role.ADMIN if command and command[0] else Role.APPROVER)
    policies.check_server(command, url)


def _draft_server(by: Principal, new: NewServer) -> Extension:
    """Take in the server's address; what it offers is asked afterwards."""
    transport = ports.Transport.HTTP if new.url else ports.Transport.STDIO
    policies.check_name(new.extension_id)
    manifest: Json = {
        "extensionId": new.extension_id,
        "extensionType": "mcp",
        "title": new.title or new.extension_id,
        "description": "",
        "version": new.origin.revision[:40],
        "package": "",
        "parts": [
            bundles.part_of(
                "", transport, command=list(new.command), url=new.url, env=new.env
            )
        ],
        "grants": new.grants,
        "limits": new.limits,
        "notRun": [],
        "capabilities": [],
    }
    row = _row_of(manifest)
    manifest = _with_known(row, _keep_risks(row, manifest))
    definition.check(manifest)
    arguments = {
        "extensionId": new.extension_id,
        "command": list(new.command),
        "url": new.url,
        "source": new.origin.source[:500],
    }

    def write() -> Extension:
        row.source = new.origin.source[:500]
        row.revision = new.origin.revision[:120]
        return _take_in(row, manifest, by, _verb(row))

    return decide(by, _verb(row).removesuffix("ed"), arguments, write)


def _with_known(row: Extension, manifest: Json) -> Json:
    """What the server offered last stands until it is asked again."""
    if row._state.adding:
        return manifest
    before = definition.manifest_of(row)
    served = {each["name"]: each for each in before["parts"]}.get("", {})
    parts = [
        {**each, **{key: served[key] for key in ("served", "server") if key in served}}
        for each in manifest["parts"]
    ]
    return {**manifest, "parts": parts, "capabilities": before["capabilities"]}


def _sync_part(by: Principal, row: Extension, part: str, reason: str) -> Extension:
    arguments = {"extensionId": row.ext_id, "part": part, "reason": reason}
    try:
        return decide(by, "sync", arguments, _asking(by, row, part), waits=True)
    except AuthorizationWanted as wanted:
        connections.note_wanted(row, part, wanted)
        raise


def _asking(by: Principal, row: Extension, part: str) -> Callable[[], Extension]:
    def ask() -> Extension:
        source = sources.source_of(row, part, trust=_asked_as(row, part))
        runtime = ports.find_runtime(source.transport)
        if runtime is None:
            raise AdapterMissing(f"Nothing here asks servers over {source.transport}.")
        served = runtime.describe(source)
        manifest = definition.with_served(definition.manifest_of(row), part, served)
        if not row.version:
            manifest["version"] = str(served.server.get("version") or "")[:40]
        return _take_in(row, manifest, by, "upgraded")

    return ask


def _asked_as(row: Extension, part: str) -> str:
    """A server behind a URL has to be reached to be asked; a command runs without
    network or secrets until somebody has reviewed it."""
    found = next(each for each in row.parts if each["name"] == part)
    if found["transport"] == ports.Transport.HTTP:
        return Trust.TRUSTED if row.trust == Trust.TRUSTED else Trust.REVIEWED
    return Trust.SANDBOXED if row.trust == Trust.BLOCKED else row.trust


def _check_present(row: Extension) -> None:
    if row.lifecycle in (Lifecycle.REMOVED, Lifecycle.PENDING_INSTALL):
        raise Conflict(
            f"{row.ext_id} is {row.lifecycle}; install it first.",
            fields=(FieldProblem("extensionId", row.lifecycle, "an installed one"),),
        )
