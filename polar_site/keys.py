"""New secrets in `.env`, and the restart after which they hold.

    .venv/bin/python -m polar_site.keys renew POLAR_UI_API_SECRET
    .venv/bin/python -m polar_site.keys renew POLAR_VAULT_KEY   then: restart
    .venv/bin/python -m polar_site.keys retire                  after `vault finish`

Hides: the shape of the key ring, and the runner of `make run`.
Invariant: a new vault key goes before those in use; none is lost by it. No secret is
an argument or is printed.
"""

import argparse
import os
import secrets
import signal
import sys

from polar_site import bootstrap
from polar_site.bootstrap import read_env, say, stop_with

RESTART = ".venv/bin/python -m polar_site.keys restart"


def renew(name: str) -> None:
    """Put a new secret into `.env`; a vault key goes before those in use.

    Holds at the next restart. Raises: SystemExit for a name that is no such secret.
    """
    known = read_env()
    if name == "POLAR_UI_API_SECRET":
        made = {name: secrets.token_urlsafe(48)}
    elif name == "POLAR_VAULT_KEY":
        first = f"k{secrets.token_hex(4)}:{bootstrap.random_key()}"
        ring = f"{first},{known.get('POLAR_VAULT_KEYS', '')}"
        made = {"POLAR_VAULT_KEYS": ring.rstrip(",")}
    else:
        stop_with("renew POLAR_UI_API_SECRET or POLAR_VAULT_KEY.")
    bootstrap.replace_private(bootstrap.ENV_FILE, bootstrap.with_values(made))
    say(f"Wrote a new {name} to .env. It holds after: {RESTART}")


def retire() -> None:
    """Take every vault key but the first out of `.env`: after `vault finish`."""
    first = read_env().get("POLAR_VAULT_KEYS", "").split(",")[0]
    if not first:
        stop_with("retire once POLAR_VAULT_KEYS has a new first key.")
    made = {"POLAR_VAULT_KEY": "", "POLAR_VAULT_KEYS": first}
    bootstrap.replace_private(bootstrap.ENV_FILE, bootstrap.with_values(made))
    say(f"One vault key is left in .env. It holds after: {RESTART}")


def restart() -> None:
    """Restart web, worker and clock of a running `make run`, and wait for the web."""
    try:
        os.kill(int((bootstrap.VAR / "supervisord.pid").read_text()), signal.SIGHUP)
    except (OSError, ValueError):
        stop_with("`make run` is not running here; restart your own supervisor.")
    for awaited in (False, True):
        for _ in range(20 * bootstrap.READY_SECONDS):
            if bootstrap.is_up() == awaited:
                break
            bootstrap.pause(0.05)
    if not bootstrap.is_up():
        stop_with(f"the web process does not answer; see {bootstrap.LOGS.name}/web.log")
    say("Polar runs with what .env says now.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="keys")
    steps = parser.add_subparsers(dest="step", required=True)
    made = steps.add_parser("renew", help="a new secret, in .env")
    made.add_argument("name", choices=["POLAR_UI_API_SECRET", "POLAR_VAULT_KEY"])
    steps.add_parser("retire", help="take all vault keys but the first out of .env")
    steps.add_parser("restart", help="restart what `make run` runs")
    chosen = parser.parse_args()
    if chosen.step == "renew":
        renew(chosen.name)
    elif chosen.step == "retire":
        retire()
    else:
        restart()
    return 0


if __name__ == "__main__":
    sys.exit(main())
