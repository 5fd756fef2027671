"""`manage.py agents`: who they are, whom they serve, who called whom, from a shell."""

import json
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.access.queries import default_workspace
from apps.agents import queries, services
from apps.agents.engine import recursion, recursion_hours, usage_hours
from apps.agents.models import AgentProfile, PinScope, as_body
from apps.common.errors import PolarError
from apps.providers import queries as providers
from apps.providers.models import Lane

PIN_SCOPES = list(PinScope.values)


class Command(BaseCommand):
    help = (
        "Look at agents and change them. Examples: ./polar agents lane writer brain; "
        "./polar agents set writer max_turns=6; ./polar agents recursion --json"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        heat = verbs.add_parser(
            "recursion", help="Count turns by agent and depth, handoffs by edge."
        )
        heat.add_argument("--root", type=uuid.UUID, help="the root run of one tree")
        heat.add_argument("--hours", type=int, default=24)
        verbs.add_parser("list", help="Every agent with its lane and version.")
        show = verbs.add_parser("show", help="All that a profile says.")
        lane = verbs.add_parser("lane", help="Switch its lane, from the next turn on.")
        change = verbs.add_parser("set", help="Change fields; values are JSON or text.")
        for each in (show, lane, change):
            each.add_argument("slug")
        lane.add_argument("lane", choices=list(Lane.values))
        change.add_argument("fields", nargs="+", help="field=value")
        verbs.add_parser("pins", help="Who is served by which agent.")
        pin = verbs.add_parser("pin", help="Let an agent serve a scope.")
        unpin = verbs.add_parser("unpin", help="Take a pin away.")
        for each in (pin, unpin):
            each.add_argument("scope", choices=PIN_SCOPES)
            each.add_argument("--id", default="", help="session, user or workspace")
        pin.add_argument("slug")
        verbs.add_parser("resum", help="Sum usage and the heat map up again.")
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            lines, shown = getattr(self, f"_{options['verb']}")(options)
        except PolarError as error:
            fields = "; ".join(f"{f.path}: {f.problem}" for f in error.fields)
            said = f"{error.detail} {fields}".strip()
            raise CommandError(f"{said} ({error.code})") from None
        text = json.dumps(shown, default=str) if options["json"] else "\n".join(lines)
        self.stdout.write(text)

    def _recursion(self, options: dict[str, Any]) -> Any:
        by = access.system_principal()
        if options["root"]:
            drawn = recursion.of_root(root_id=options["root"], principal=by)
        else:
            drawn = recursion.of_window(hours=options["hours"], principal=by)
        told = drawn.as_dict()
        lines = [f"{drawn.turns} turns, {drawn.handoffs} handoffs"]
        for row in told["by_depth"]:
            lines.append(f"@{row['agent']} depth {row['depth']}: {row['turns']}")
        for row in told["by_edge"]:
            cut = f", {row['cut']} cut" if row["cut"] else ""
            lines.append(f"@{row['source']} → @{row['target']}: {row['handoffs']}{cut}")
        return lines, told

    def _resum(self, options: dict[str, Any]) -> Any:
        wrong, log = usage_hours.rebuild(), recursion_hours.rebuild()
        lines = [
            f"summed up again; {wrong} hours had other sums than their rows",
            f"{log} hours of the heat map had other sums than the log",
        ]
        return lines, {"hours_mended": wrong, "heat_hours_mended": log}

    def _list(self, options: dict[str, Any]) -> Any:
        rows = list(queries.profiles(visible_to=access.system_principal())[:500])
        lines = [
            f"@{row.slug:<20} {row.lane:<7} version {row.version}"
            + ("" if row.is_active else ", inactive")
            for row in rows
        ]
        return lines, [
            {"slug": row.slug, "lane": row.lane, "version": row.version} for row in rows
        ]

    def _show(self, options: dict[str, Any]) -> Any:
        return _told(_find(options["slug"]))

    def _lane(self, options: dict[str, Any]) -> Any:
        return _told(_saved(options["slug"], {"lane": options["lane"]}))

    def _set(self, options: dict[str, Any]) -> Any:
        changes = {}
        for each in options["fields"]:
            name, mark, text = each.partition("=")
            if not mark:
                raise CommandError(f"{each!r} is not field=value.")
            changes[name] = _read(text)
        if "pinned_model" in changes:
            provider, _, model = str(changes["pinned_model"] or "").partition("/")
            found = providers.get_model(provider, model) if provider else None
            changes["pinned_model"] = found
        return _told(_saved(options["slug"], changes))

    def _pins(self, options: dict[str, Any]) -> Any:
        pins = list(queries.pins(visible_to=access.system_principal())[:500])
        rows = [{"scope": p.scope, "id": p.key, "agent": p.profile_slug} for p in pins]
        lines = [f"{row['scope']:<10} {row['id']:<38} @{row['agent']}" for row in rows]
        return lines or ["Nothing is pinned."], rows

    def _pin(self, options: dict[str, Any]) -> Any:
        profile = _find(options["slug"])
        services.pin(
            by=access.system_principal(),
            scope=options["scope"],
            key=_key(options),
            profile=profile,
        )
        return self._pins(options)

    def _unpin(self, options: dict[str, Any]) -> Any:
        services.unpin(
            by=access.system_principal(),
            scope=options["scope"],
            key=_key(options),
            workspace=default_workspace(),
        )
        return self._pins(options)


def _key(options: dict[str, Any]) -> str:
    is_here = options["scope"] == PinScope.WORKSPACE and not options["id"]
    return str(default_workspace().id) if is_here else str(options["id"])


def _find(slug: str) -> AgentProfile:
    return queries.get_profile(workspace=default_workspace(), slug=slug)


def _saved(slug: str, changes: dict[str, Any]) -> AgentProfile:
    profile = _find(slug)
    return services.save_profile(
        by=access.system_principal(),
        workspace=profile.workspace,
        slug=profile.slug,
        changes=changes,
        expected_version=profile.version,
    )


def _told(profile: AgentProfile) -> Any:
    body = as_body(profile) | {"slug": profile.slug, "version": profile.version}
    return [f"{name}: {value}" for name, value in body.items()], body


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
