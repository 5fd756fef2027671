"""Drill E: the vault's key is lost; the recovery kit brings everything back."""

import json
import secrets
from base64 import b64encode
from pathlib import Path
from typing import Any

from django.conf import settings

from apps.access import services as access_services
from apps.agents.models import TurnState
from apps.common import canonical
from apps.providers import services as providers
from apps.providers.models import Provider
from apps.reliability import ports
from apps.reliability.engine.drilling.asking import (
    ask,
    start_worker,
    turns_of,
    wait_for,
)
from apps.reliability.engine.drilling.doubles import play
from apps.reliability.engine.drilling.notebook import notebook
from apps.runs.models import Run, State
from apps.vault import services as vault
from apps.vault.models import Secret

#: What the drill's one provider wants to hear.
KEY = "sk-drill-canary"
#: `vault status` exits with these: open, sealed.
OPEN, SEALED = 0, 3


def prepare() -> None:
    """One provider, whose key lies in the vault; a recovery kit, kept elsewhere."""
    system = access_services.system_principal()
    for row in Provider.objects.all():
        providers.remove_provider(by=system, slug=row.slug)
    double = play("models", 0)
    double.manner |= {"reply": "This is brain.", "key": KEY}
    entry = providers.ProviderEntry(
        slug="drill-brain",
        kind="openai_compatible",
        base_url=f"http://{double.place}/v1",
        key=KEY,
    )
    providers.add_provider(by=system, entry=entry, model="drill", lane="brain")
    kit = vault.make_kit(by=system.actor, form="offline")
    while vault.progress().state == "running":
        vault.advance(by=system.actor)
    notebook.kept |= {"kit": kit.lines, "recipient": kit.recovery.recipient}


def remove_protection() -> None:
    code, said = ports.stage().order(
        "vault", "export-recovery", "--drop", notebook.kept["recipient"]
    )
    notebook.tell(
        "attention", f"Control: no recovery kit ({code}, {said.strip()[:80]})"
    )


def lose_key() -> bool:
    """The key of the environment is another one; every process starts with it."""
    notebook.kept["sealed"] = _sealed_rows()
    env = Path(settings.POLAR_CLONE) / "env"
    kept = [
        line
        for line in env.read_text().splitlines()
        if not line.startswith("POLAR_VAULT_KEY")
    ]
    new = b64encode(secrets.token_bytes(32)).decode()
    env.write_text("\n".join([*kept, f"POLAR_VAULT_KEYS=k2:{new}", ""]))
    troupe = notebook.kept["troupe"]
    for name in ("worker", "clock"):
        troupe[name].end()
    troupe["clock"] = ports.stage().spawn("clock")
    started = start_worker()
    notebook.fault("the vault's key is gone, another one stands in its place")
    return started


def _sealed_rows() -> str:
    rows = Secret.objects.order_by("id").values_list("id", "ciphertext")
    return canonical.digest([[str(part) for part in row] for row in rows])


def loss_is_named() -> bool:
    code, said = ports.stage().order("vault", "status", "--json")
    why = str(_json(said).get("reason", said.strip()[-80:]))
    held = code == SEALED and why in ("missing_key", "no_key", "wrong_key")
    return notebook.observe("loss named", held, f"`vault status`: {code}, {why}")


def _json(said: str) -> dict[str, Any]:
    try:
        return dict(json.loads(said))
    except ValueError:
        return {}


def work_waits_by_name() -> bool:
    """A question that needs the secret waits; it neither fails nor is forgotten."""
    turn = ask("Are you there?")
    notebook.kept["waiting"] = turn.id
    waits = Run.objects.filter(id=turn.run_id, state=State.WAITING_VAULT)
    held = wait_for(waits.exists, 30, is_missed_by_control=False)
    state = Run.objects.get(id=turn.run_id).state
    return notebook.observe("work waits", held, f"the question is {state}")


def nothing_overwritten() -> bool:
    same = _sealed_rows() == notebook.kept["sealed"]
    said = "the sealed rows are as they were" if same else "sealed rows changed"
    return notebook.observe("nothing overwritten", same, said)


def recover_with_kit() -> bool:
    """What the runbook says: `vault recover` with the offline key."""
    kit = "\n".join(notebook.kept["kit"]) + "\n"
    code, said = ports.stage().order("vault", "recover", stdin=kit)
    notebook.tell(
        "ok" if code == OPEN else "critical", f"Recovery: {said.strip()[:200]}"
    )
    return code == OPEN


def secrets_open_again() -> bool:
    """The vault is open, and who waited is answered without asking again."""
    code, _ = ports.stage().order("vault", "status", "--json")
    asked = [notebook.kept["waiting"]]
    wait_for(lambda: turns_of(asked)[0].state == TurnState.ANSWERED, 40)
    state = turns_of(asked)[0].state
    said = f"`vault status` exits {code}; the question that waited is {state}"
    held = code == OPEN and state == TurnState.ANSWERED
    return notebook.observe("recovered", held, said)
