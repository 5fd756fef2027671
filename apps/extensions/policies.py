"""May this extension be enabled, this server be started? `check_` says why not."""

import re
from typing import NoReturn
from urllib.parse import urlsplit

from apps.common.errors import FieldProblem, Invalid, NotTrusted

from .errors import ReviewMissing
from .models import Extension, Trust


def check_may_enable(extension: Extension) -> None:
    """Refuse a blocked extension, and one whose present form was not reviewed."""
    if extension.trust == Trust.BLOCKED:
        raise NotTrusted(
            f"{extension.ext_id} is blocked: {why_blocked(extension)}",
            extension_id=extension.ext_id,
        )
    if not extension.is_pinned:
        raise ReviewMissing(
            f"{extension.ext_id} {extension.version} is not what was reviewed.",
            reviewed_hash=extension.reviewed_hash,
            definition_hash=extension.definition_hash,
        )


def why_blocked(extension: Extension) -> str:
    """Say who blocked an extension, when, and why; "" when nobody did."""
    if extension.trust != Trust.BLOCKED:
        return ""
    at = extension.trust_at
    when = f" at {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    who = extension.trust_by or "Polar"
    return f"{who} blocked {extension.ext_id}{when}: {extension.trust_reason}"


#: Programs that a server's command may start by name; others by absolute path.
LAUNCHERS = frozenset({"node", "npx", "python3", "uv", "uvx", "deno", "bun", "bunx"})
#: Shells would read a line; a command is an argument vector.
SHELLS = re.compile(
    r"^(ba|da|z|k|c|tc|a|fi|pw)?sh$|^(busybox|env|sudo|su|xargs|cmd|powershell)$"
)
_NAME = re.compile(r"^[a-z0-9]+([-_][a-z0-9]+)*$")


def check_name(ext_id: str) -> None:
    """Refuse what is no plain name for an extension."""
    if not _NAME.match(ext_id) or len(ext_id) > 64:
        raise Invalid(
            f"{ext_id[:80]!r} cannot name an extension.",
            fields=(
                FieldProblem(
                    "extensionId", "not a plain name", "lowercase words and hyphens"
                ),
            ),
        )


def check_server(command: tuple[str, ...], url: str) -> None:
    """Refuse a server with neither or both of command and URL, a shell, or a URL
    that carries credentials. Reads no DNS."""
    program = command[0] if command else ""
    if bool(program) == bool(url):
        _refuse_server("command", "exactly one of command and url")
    if url:
        _check_url(url)
        return
    name = program.rsplit("/", 1)[-1]
    if SHELLS.match(name) or any("\0" in each for each in command):
        _refuse_server("command[0]", "a program, never a shell or a launcher of others")
    if not program.startswith("/") and program not in LAUNCHERS:
        known = ", ".join(sorted(LAUNCHERS))
        _refuse_server("command[0]", f"an absolute path, or one of {known}")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        _refuse_server("url", "a URL")
    local = host in ("localhost", "127.0.0.1", "::1")
    if parts.scheme not in ("http", "https") or not host:
        _refuse_server("url", "http(s)://host/path")
    if parts.scheme == "http" and not local:
        _refuse_server("url", "https, except on loopback")
    if parts.username or parts.password or parts.query or parts.fragment:
        _refuse_server("url", "no credentials, query or fragment: grant a secret")


def _refuse_server(path: str, expected: str) -> NoReturn:
    raise Invalid(
        f"This server cannot be taken in: {path} should be {expected}.",
        fields=(FieldProblem(path, "refused", expected),),
    )
