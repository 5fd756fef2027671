"""`access users|tokens|policy`: who may enter, and with what."""

import json
import sys
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from apps.access import queries, services
from apps.access.models import Role
from apps.access.policies import EVERYTHING
from apps.access.services import factors
from apps.common import clock
from apps.common.errors import NotFound, PolarError


class Command(BaseCommand):
    """Thin: asks, prints, sets the exit code."""

    help = (
        "Let people in, change their role, send them away; make and end tokens. "
        "Passwords are read from standard input. "
        "Example: ./polar access users add dora --role operator < password.txt"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        areas = parser.add_subparsers(dest="area", required=True)
        users = areas.add_parser("users", help="people").add_subparsers(
            dest="verb", required=True
        )
        _verb(users, "list", "who belongs here, and as what")
        add = _verb(users, "add", "let somebody in; password from stdin", "username")
        add.add_argument("--role", choices=Role.values, default=Role.VIEWER)
        role = _verb(users, "role", "give another role", "username")
        role.add_argument("role", choices=Role.values)
        _verb(users, "deactivate", "send away, ending sessions and tokens", "username")
        _verb(users, "activate", "let in again", "username")
        _verb(users, "password", "set a password from stdin", "username")
        _verb(users, "drop-factor", "remove a lost second factor", "username")
        tokens = areas.add_parser("tokens", help="API tokens").add_subparsers(
            dest="verb", required=True
        )
        _verb(tokens, "list", "every token; never its value")
        make = _verb(tokens, "add", "make a token, shown once", "name")
        make.add_argument("--scope", action="append", required=True)
        make.add_argument("--user", default="", help="whose token it is")
        make.add_argument("--days", type=int, help="ends after so many days")
        _verb(tokens, "revoke", "end a token everywhere at once", "id")
        rate = _verb(tokens, "limit", "how many requests a minute it may send", "id")
        rate.add_argument("per_minute", type=int)
        policy = areas.add_parser("policy", help="what entering takes").add_subparsers(
            dest="verb", required=True
        )
        factor = _verb(policy, "second-factor", "of approvers and administrators")
        factor.add_argument("demand", choices=["required", "optional"])

    def handle(self, *args: Any, **options: Any) -> None:
        run = getattr(self, f"_{options['area']}")
        try:
            shown = run(options)
        except PolarError as error:
            raise CommandError(f"{error.detail} ({error.code})") from error
        if options["json"]:
            self.stdout.write(json.dumps(shown, sort_keys=True, default=str))
        else:
            rows = shown if isinstance(shown, list) else [shown]
            self.stdout.write("\n".join(_line(row) for row in rows))

    def _users(self, options: dict[str, Any]) -> Any:
        by, home = services.system_principal(), services.ensure_default_workspace()
        verb = options["verb"]
        if verb == "list":
            return [_person(row) for row in queries.people_of(home)]
        name = options["username"]
        if verb == "add":
            role = Role(options["role"])
            new = services.NewUser(name, self._password(), role, home)
            services.create_user(by=by, new=new)
            return {"username": name, "role": str(role)}
        user = queries.find_user(name, home)
        if user is None:
            raise NotFound(f"There is nobody called {name!r}.")
        if verb == "role":
            services.set_role(by=by, user=user, role=options["role"], workspace=home)
        elif verb == "deactivate":
            services.deactivate_user(by=by, user=user, workspace=home)
        elif verb == "activate":
            services.activate_user(by=by, user=user, workspace=home)
        elif verb == "password":
            services.reset_password(
                by=by, user=user, password=self._password(), workspace=home
            )
        else:
            factors.remove(by=by, user=user, reason="on the command line")
        return {"username": name, "done": verb}

    def _tokens(self, options: dict[str, Any]) -> Any:
        by = services.system_principal()
        if options["verb"] == "list":
            return [_token(row) for row in queries.tokens_for(by).order_by("-id")[:500]]
        if options["verb"] == "revoke":
            services.revoke_token(by=by, token_id=_id(options))
            return {"id": options["id"], "done": "revoke"}
        if options["verb"] == "limit":
            per_minute = options["per_minute"]
            return _token(
                services.limit_token(
                    by=by, token_id=_id(options), rate_per_minute=per_minute
                )
            )
        owner = by
        if options["user"]:
            user = queries.find_user(options["user"], queries.default_workspace())
            if user is None:
                raise NotFound(f"There is nobody called {options['user']!r}.")
            owner = services.principal_for_user(user=user)
        days = options["days"]
        row, raw = services.issue_token(
            by=by,
            principal=owner,
            name=options["name"],
            scopes=options["scope"],
            held=frozenset({EVERYTHING}),
            expires_at=clock.now() + timedelta(days=days) if days else None,
        )
        return {**_token(row), "token": raw}

    def _policy(self, options: dict[str, Any]) -> Any:
        required = options["demand"] == "required"
        factors.require_second_factor(by=services.system_principal(), required=required)
        return {"second_factor_required": required}

    def _password(self) -> str:
        """From standard input: the process list shows none."""
        if sys.stdin.isatty():
            self.stderr.write("Type the password, Enter, then Ctrl-D.")
        return sys.stdin.read().rstrip("\r\n")


def _verb(verbs: Any, name: str, text: str, *positional: str) -> ArgumentParser:
    verb: ArgumentParser = verbs.add_parser(name, help=text)
    for each in positional:
        verb.add_argument(each)
    verb.add_argument("--json", action="store_true", help="for programs")
    return verb


def _id(options: dict[str, Any]) -> UUID:
    try:
        return UUID(options["id"])
    except ValueError as error:
        raise CommandError("This is not the id of a token.") from error


def _person(row: Any) -> dict[str, Any]:
    factor = getattr(row.user, "second_factor", None)
    return {
        "username": row.user.username,
        "role": row.role,
        "active": row.user.is_active,
        "second_factor": factor is not None and factor.confirmed_at is not None,
    }


def _token(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "name": row.name,
        "owner": row.principal.label,
        "scopes": row.scopes,
        "live": row.is_live,
        "rate_per_minute": row.rate_per_minute,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
    }


def _line(row: dict[str, Any]) -> str:
    return "  ".join(f"{key}={value}" for key, value in row.items())
