"""A house of many secrets whose key is changed while it is shot at.

Hides: the processes that store the secrets, that are `vault rotate` killed in and
between batches, and that open every secret with the new key alone.
"""

import json
import os
import random
import signal
import sys
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

from apps.common import failpoints

#: The two keys of a ring, as `POLAR_VAULT_KEYS` has them: the suite's own is the old.
NEW = "new:" + b64encode(b"journeys-new-vault-key-32-bytes!").decode()
#: Both stand where a kill hurts: before a batch, and in one that is not committed.
PLACES = ("vault.batch", "vault.batch_written")
#: A rotation that is killed leaves at most one batch behind: of 10,000 secrets there is
#: work for 100 kills and more.
MOST_BATCHES = 2
#: One line for each kill: when it was, as a database writes it.
KILLED = "killed.txt"


def fill(count: str) -> None:
    """Store so many secrets."""
    from apps.common.actor import Actor
    from apps.vault import services

    by = Actor("system", "system", "journey")
    for number in range(int(count)):
        services.put(by=by, name=f"many/{number}", purpose="p", value=f"value {number}")


def rotate_killed(kills: str, pause: str) -> None:
    """Be `vault rotate` again and again, each time dead by SIGKILL at its work.

    Fails when one of them ended in another way. Each is a process of its own, and its
    moment is noted in `KILLED`, beside the log.
    """
    chance, noted = random.Random(1), Path(os.environ["JOURNEY_LOG"]).with_name(KILLED)
    for _ in range(int(kills)):
        place, reached = chance.choice(PLACES), chance.randint(1, MOST_BATCHES)
        child = os.fork()
        if child == 0:
            _rotate_until(place, reached)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"a rotation ended by itself at {place}: {status}")
        with noted.open("a") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}+00\n")
        time.sleep(float(pause))


def _rotate_until(place: str, reached: int) -> None:
    from django.core.management import call_command

    left = reached

    def hook(name: str) -> None:
        nonlocal left
        left -= name == place
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.install(hook)
    call_command("vault", "rotate")
    os._exit(1)


def open_all() -> None:
    """Open every secret; print how many there are and which do not open."""
    from apps.common.actor import Actor
    from apps.common.errors import PolarError
    from apps.vault import services
    from apps.vault.models import Secret

    by = Actor("system", "system", "journey")
    unreadable, secrets = [], list(Secret.objects.values_list("pk", "name"))
    for pk, name in secrets:
        try:
            with services.lease(pk, purpose="journey", by=by) as value:
                if name.startswith("many/") and value.reveal() != _value(name):
                    unreadable.append(name)
        except PolarError:
            unreadable.append(name)
    told = {"secrets": len(secrets), "unreadable": unreadable}
    sys.stdout.write(json.dumps(told) + "\n")


def _value(name: str) -> str:
    return f"value {name.removeprefix('many/')}"
