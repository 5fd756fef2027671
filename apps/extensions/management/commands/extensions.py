"""`./polar extensions`: what may run, taken in, reviewed and stopped from a shell.

Example: ./polar extensions install ./invoices --source https://example.org/invoices
"""

import json
import shlex
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from apps.access import services as access
from apps.access.models import Principal, User
from apps.access.policies import Authenticated
from apps.access.queries import default_workspace, find_user
from apps.common import canonical
from apps.common.errors import NotFound, PolarError
from apps.extensions import queries, services
from apps.extensions.engine import comparing, definition, packages
from apps.extensions.models import Extension
from apps.extensions.services.ordering import OPERATIONS
from apps.gateway.ports import Json


class Command(BaseCommand):
    help = "List, inspect, install, review, enable, stop and execute extensions."

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            *args,
            **kwargs,
            formatter_class=RawDescriptionHelpFormatter,
            epilog="Example:\n  ./polar extensions install ./invoices --source "
            "https://example.org/invoices\n  ./polar extensions review invoices --hash "
            "HASH --approve --trust sandboxed --reason 'read it'",
        )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list")
        verbs.add_parser("inspect").add_argument("name")
        install = verbs.add_parser("install", help="a folder or zip, or an MCP server")
        install.add_argument("package", type=Path, nargs="?")
        install.add_argument("--plugin", action="store_true")
        install.add_argument("--mcp", metavar="NAME", help="the name of an MCP server")
        install.add_argument("--command", dest="server", help="its command line")
        install.add_argument("--url", default="")
        install.add_argument("--source", default="")
        install.add_argument("--revision", default="")
        install.add_argument("--reason", default="taken in from the command line")
        review = verbs.add_parser("review")
        review.add_argument("name")
        review.add_argument("--hash", required=True, help="the form you have read")
        review.add_argument("--trust", default="sandboxed")
        review.add_argument("--approve", action="store_true", help="else: reject")
        review.add_argument("--risks", default="{}", help="JSON by capability")
        connect = verbs.add_parser("connect", help="print the URL that a person opens")
        connect.add_argument("name")
        connect.add_argument("--as", dest="username", required=True, metavar="USER")
        connect.add_argument("--part", default="")
        connect.add_argument("--client-id", default="")
        connect.add_argument("--base-url", default="", help="where the desk is reached")
        disconnect = verbs.add_parser("disconnect", help="revoke and forget its tokens")
        disconnect.add_argument("name")
        disconnect.add_argument("--part", default="")
        execute = verbs.add_parser("execute", help="send one request")
        execute.add_argument("request", help="the JSON of executeExtension, or -")
        for operation in OPERATIONS:
            if operation != "configure":
                verbs.add_parser(operation).add_argument("name")
        for verb, each in verbs.choices.items():
            each.add_argument("--json", action="store_true")
            if verb not in ("list", "inspect", "install", "execute", "connect"):
                each.add_argument("--reason", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        verb = options["verb"]
        found: Any
        try:
            if verb in OPERATIONS:
                found = self._apply(options)
            else:
                found = getattr(self, f"do_{verb}")(options)
        except PolarError as error:
            where = "; ".join(f"{e.path}: {e.problem}" for e in error.fields[:5])
            raise CommandError(f"{error} {where} ({error.code})".strip()) from None
        if options["json"] or not isinstance(found, list):
            self.stdout.write(json.dumps(found, default=str, indent=1))
            return
        for line in found:
            self.stdout.write("  ".join(str(value) for value in line.values()))

    def do_list(self, options: dict[str, Any]) -> list[Json]:
        return [_state(row) for row in queries.extensions()]

    def do_inspect(self, options: dict[str, Any]) -> Json:
        row = queries.find_by_name(options["name"])
        now, before = definition.manifest_of(row), queries.reviewed_form(row)
        lines = comparing.diff(before, now) if row.parts else []
        signs = {"add": "+", "del": "-"}
        return {
            **_state(row),
            "source": row.source,
            "revision": row.revision,
            "definition": now,
            "difference": [f"{signs.get(each.kind, ' ')}{each.text}" for each in lines],
            "warnings": comparing.delta(before, now).warnings if row.parts else [],
        }

    def do_install(self, options: dict[str, Any]) -> Json:
        by = _operator()
        if options["mcp"]:
            command = tuple(shlex.split(options["server"] or ""))
            source = options["source"] or options["url"] or " ".join(command)
            new = services.NewServer(
                extension_id=options["mcp"],
                command=command,
                url=options["url"],
                origin=services.Origin(source=source, revision=options["revision"]),
            )
            row = services.sync_mcp_server(by=by, new=new, reason=options["reason"])
            return _state(row)
        path: Path | None = options["package"]
        if path is None or not path.exists():
            raise NotFound("Name a folder or a zip, or --mcp with --command or --url.")
        files = (
            packages.from_folder(path)
            if path.is_dir()
            else packages.from_zip(path.read_bytes())
        )
        source = options["source"] or str(path.resolve())
        origin = services.Origin(source=source, revision=options["revision"])
        take = services.install_plugin if options["plugin"] else services.install_skill
        return _state(take(by=by, files=files, origin=origin))

    def do_review(self, options: dict[str, Any]) -> Json:
        row = queries.find_by_name(options["name"])
        verdict = services.Verdict(
            definition_hash=options["hash"],
            approve=options["approve"],
            trust=options["trust"],
            reason=options["reason"],
            risks=canonical.loads(options["risks"]),
        )
        found = services.review_extension(
            by=_operator(), extension_id=row.id, verdict=verdict
        )
        return _state(found)

    def do_connect(self, options: dict[str, Any]) -> Json:
        """The named administrator comes back to the desk, signed in."""
        row = queries.find_by_name(options["name"])
        back = reverse("extensions:connected")
        order = services.ConnectOrder(
            part=options["part"],
            redirect_uri=f"{options['base_url'] or _desk()}".rstrip("/") + back,
            client_id=options["client_id"],
        )
        by = access.principal_for_user(user=_person(options["username"]))
        asked = services.connect_extension(by=by, extension_id=row.id, order=order)
        return {
            "authorizationUrl": asked.url,
            "issuer": asked.issuer,
            "scope": asked.scope,
            "openAs": options["username"],
            "expiresAt": asked.expires_at,
        }

    def do_disconnect(self, options: dict[str, Any]) -> Json:
        row = queries.find_by_name(options["name"])
        done = services.disconnect_extension(
            by=_operator(),
            extension_id=row.id,
            part=options["part"],
            reason=options["reason"],
        )
        return {**_state(row), "connection": "disconnected", "problem": done.problem}

    def do_execute(self, options: dict[str, Any]) -> Json:
        """The system acts for the session's person; the scope narrows as always."""
        given = options["request"]
        body = canonical.loads(self.stdin_text() if given == "-" else given)
        auth = Authenticated(_operator(), frozenset({"*"}))
        answer = services.execute_extension(auth=auth, body=body)
        if answer.error is not None and answer.status == "failed":
            raise answer.error
        return {
            "status": answer.status,
            "output": answer.output,
            "approvalId": answer.approval_id,
            "traceId": answer.trace_id,
        }

    def stdin_text(self) -> str:
        with open(0, closefd=False) as stream:
            return stream.read()

    def _apply(self, options: dict[str, Any]) -> Json:
        row = queries.find_by_name(options["name"])
        order = services.Order(operation=options["verb"], reason=options["reason"])
        found = services.apply_lifecycle(
            by=_operator(), extension_id=row.id, order=order
        )
        shown = _state(queries.find_by_name(options["name"]))
        if found is not None:
            shown["certificate"] = canonical.loads(found.body)
            shown["signature"] = found.signature
        return shown


def _state(row: Extension) -> Json:
    return {
        "extensionId": row.ext_id,
        "type": row.type,
        "trust": row.trust,
        "lifecycle": row.lifecycle,
        "isReviewed": row.is_pinned,
        "definitionHash": row.definition_hash,
    }


def _person(name: str) -> User:
    found = find_user(name, default_workspace())
    if found is None:
        raise NotFound(f"There is nobody called {name[:80]!r} here.")
    return found


def _desk() -> str:
    """Where browsers reach the desk, as far as the settings know."""
    origins = settings.CSRF_TRUSTED_ORIGINS
    return origins[0] if origins else f"http://127.0.0.1:{settings.POLAR_PORT}"


def _operator() -> Principal:
    """Whoever runs a command on the host has the host."""
    return access.system_principal()
