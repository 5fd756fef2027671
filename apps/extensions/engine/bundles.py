"""Turns packages into manifests: Agent Skills folders and Claude plugin bundles.

Source: https://agentskills.io/specification and
https://code.claude.com/docs/en/plugins-reference. Reading runs nothing; what a
bundle brings beyond skills and MCP servers is listed as not run.
"""

import re
from pathlib import PurePosixPath
from typing import Any, NoReturn

import yaml

from apps.common import canonical
from apps.common.errors import FieldProblem, Invalid
from apps.extensions.errors import PackageRefused
from apps.extensions.ports import Transport
from apps.gateway.ports import EffectClass, Json

from . import drafts, store
from .store import Files

SKILL, DRAFT = "SKILL.md", "polar.json"
PLUGIN, SERVERS = ".claude-plugin/plugin.json", ".mcp.json"
LONGEST_HEAD = 16_384
_NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*(?:\r?\n|\Z)", re.DOTALL)
#: Parts of a plugin that would act without passing the gateway.
NOT_RUN = {
    "commands": "slash commands of another product",
    "agents": "agents run only as profiles of Polar",
    "hooks": "hooks would run outside the gateway",
    "output-styles": "styles of another product",
    "lspServers": "language servers are not called by agents",
    ".lsp.json": "language servers are not called by agents",
    "monitors": "background monitors would run outside the gateway",
    "bin": "programs on the path would run outside the gateway",
    "settings.json": "settings of another product",
}
SCRIPT_INPUT: Json = {
    "type": "object",
    "properties": {
        "args": {
            "type": "array",
            "items": {"type": "string", "maxLength": 4096},
            "maxItems": 64,
            "description": "Its command line, where others on the host may read it.",
        },
        "stdin": {
            "type": "string",
            "maxLength": 262_144,
            "description": "What it reads; without it, all of this as JSON.",
        },
    },
    "additionalProperties": False,
}
READ_INPUT: Json = {
    "type": "object",
    "properties": {"path": {"type": "string", "minLength": 1, "maxLength": 200}},
    "required": ["path"],
    "additionalProperties": False,
}
NOTHING: Json = {"type": "object", "properties": {}, "additionalProperties": False}


def skill(files: Files) -> Json:
    """Read an Agent Skills package. Raises: PackageRefused."""
    head = _head(files, SKILL)
    manifest = _manifest(str(head["name"]), "skill", files)
    manifest |= {"title": str(head["name"]), "description": head["description"]}
    metadata = head.get("metadata")
    if isinstance(metadata, dict):
        manifest["version"] = str(metadata.get("version") or "")[:40]
    _add_skill(manifest, files, folder="", head=head, part="")
    if DRAFT in files:
        drafts.apply_draft(manifest, drafts.read_draft(files[DRAFT]), by="manifest")
    return manifest


def plugin(files: Files) -> Json:
    """Read a Claude plugin bundle. Raises: PackageRefused."""
    said = _json(files, PLUGIN)
    name = str(said.get("name") or "")
    _check_name(name, PLUGIN)
    manifest = _manifest(name, "plugin", files)
    manifest |= {
        "title": name,
        "description": str(said.get("description") or "")[:4000],
        "version": str(said.get("version") or "")[:40],
    }
    for path in sorted(files):
        parts = PurePosixPath(path).parts
        if len(parts) == 3 and parts[0] == "skills" and parts[2] == SKILL:
            head = _head(files, path)
            folder = f"{parts[0]}/{parts[1]}"
            _add_skill(manifest, files, folder=folder, head=head, part=parts[1])
    for server, how in _servers(files, said).items():
        _add_server(manifest, str(server), how)
    manifest["notRun"] += _not_run(files, said)
    if DRAFT in files:
        drafts.apply_draft(manifest, drafts.read_draft(files[DRAFT]), by="manifest")
    _check_parts(manifest)
    return manifest


def _manifest(ext_id: str, kind: str, files: Files) -> Json:
    return {
        "extensionId": ext_id,
        "extensionType": kind,
        "title": ext_id,
        "description": "",
        "version": "",
        "package": store.digest_of(files),
        "parts": [],
        "grants": {},
        "limits": {},
        "notRun": [],
        "capabilities": [],
    }


def _head(files: Files, path: str) -> Json:
    """The YAML between the dashes: name and description are required."""
    if path not in files:
        _refuse(path, "missing", f"a package with {path} at its top")
    try:
        text = files[path].decode("utf-8")
    except UnicodeDecodeError:
        _refuse(path, "not UTF-8", "UTF-8 text")
    found = _HEAD.match(text)
    if found is None or len(found[1]) > LONGEST_HEAD:
        _refuse(path, "no front matter", "--- name, description ---")
    if re.search(r"(^|[\s\[{,:])[&*]\w", found[1]):
        _refuse(path, "YAML anchors", "plain YAML")
    try:
        head = yaml.safe_load(found[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        _refuse(path, "front matter is not YAML", "plain YAML")
    if not isinstance(head, dict):
        _refuse(path, "front matter is no mapping", "name and description")
    _check_name(str(head.get("name") or ""), path)
    description = head.get("description")
    if not isinstance(description, str) or not 0 < len(description) <= 1024:
        _refuse(f"{path}:description", "missing or too long", "1 to 1,024 characters")
    return head


def _add_skill(
    manifest: Json, files: Files, *, folder: str, head: Json, part: str
) -> None:
    """A skill is text that may be read and scripts that may be run."""
    prefix = f"{part}." if part else ""
    inside = f"{folder}/" if folder else ""
    read: Json = {
        "part": part,
        "effectClass": str(EffectClass.PURE),
        "riskLevel": "read",
        "riskBy": "code",
    }
    manifest["parts"].append(part_of(part, Transport.TEXT, folder=folder))
    manifest["capabilities"] += [
        drafts.capability(
            f"{prefix}instructions",
            title=f"{head['name']}: how to",
            description=head["description"],
            inputSchema=NOTHING,
            target=SKILL,
            **read,
        ),
        drafts.capability(
            f"{prefix}read_file",
            title=f"{head['name']}: read a file",
            description=f"Read one file of the skill {head['name']}.",
            inputSchema=READ_INPUT,
            **read,
        ),
    ]
    scripts = [
        name[len(inside) :]
        for name in sorted(files)
        if name.startswith(f"{inside}scripts/")
    ]
    if scripts:
        name = f"{prefix}scripts"
        manifest["parts"].append(part_of(name, Transport.SCRIPT, folder=folder))
        manifest["capabilities"] += [
            drafts.capability(
                f"{prefix}{script}",
                title=f"{head['name']}: {PurePosixPath(script).name}",
                description=f"Run {script} of the skill {head['name']}.",
                inputSchema=SCRIPT_INPUT,
                part=name,
                target=script,
            )
            for script in scripts
        ]


def _servers(files: Files, said: Json) -> Json:
    """MCP servers stand in .mcp.json, in a file that plugin.json names, or in it."""
    named = said.get("mcpServers")
    if isinstance(named, str):
        found = _json(files, PurePosixPath(named).as_posix())
    elif isinstance(named, dict):
        return named
    elif SERVERS in files:
        found = _json(files, SERVERS)
    else:
        return {}
    inner = found.get("mcpServers", found)
    if not isinstance(inner, dict):
        _refuse(SERVERS, "mcpServers is no object", "an object by server name")
    return dict(inner)


def _add_server(manifest: Json, name: str, how: Any) -> None:
    if not isinstance(how, dict) or not re.match(r"^[A-Za-z0-9_-]{1,60}$", name):
        _refuse(f"mcpServers.{name[:60]}", "not a server", "command or url")
    for left in ("headers", "headersHelper", "oauth"):
        if how.get(left):
            why = "credentials come from the vault; grant a secret instead"
            manifest["notRun"].append({"name": f"{name}.{left}", "why": why})
    if how.get("url"):
        part = part_of(name, Transport.HTTP, url=str(how["url"]))
    else:
        command = [str(how.get("command") or ""), *map(str, how.get("args") or [])]
        env = {str(k): str(v) for k, v in (how.get("env") or {}).items()}
        part = part_of(name, Transport.STDIO, command=command, env=env)
    manifest["parts"].append(part)


def part_of(name: str, transport: Transport, **known: Any) -> Json:
    return {
        "name": name,
        "transport": str(transport),
        "folder": "",
        "command": [],
        "url": "",
        "env": {},
        "served": "",
        **known,
    }


def _not_run(files: Files, said: Json) -> list[Json]:
    present = {PurePosixPath(path).parts[0] for path in files}
    return [
        {"name": name, "why": why}
        for name, why in NOT_RUN.items()
        if name in present or said.get(name)
    ]


def _check_parts(manifest: Json) -> None:
    names = [part["name"] for part in manifest["parts"]]
    for name in names:
        if names.count(name) > 1:
            _refuse(name, "two parts of one name", "each name once")


def _json(files: Files, path: str) -> Json:
    if path not in files:
        _refuse(path, "missing", f"a bundle with {path}")
    try:
        found = canonical.loads(files[path].decode("utf-8"))
    except (UnicodeDecodeError, RecursionError, Invalid):
        _refuse(path, "not JSON", "a JSON object")
    if not isinstance(found, dict):
        _refuse(path, "not an object", "a JSON object")
    return found


def _check_name(name: str, path: str) -> None:
    if not _NAME.match(name) or len(name) > 64:
        _refuse(f"{path}:name", repr(name[:80]), "lowercase words joined by hyphens")


def _refuse(path: str, problem: str, expected: str) -> NoReturn:
    raise PackageRefused(
        f"The package is refused at {path}: {problem}; expected {expected}.",
        fields=(FieldProblem(path, problem, expected),),
    )
