"""The vault gets a new key while turns run and rotations are killed; nothing leaks.

`make chaos` runs it at full size: POLAR_REKEY_SECRETS, POLAR_REKEY_KILLS,
POLAR_REKEY_TURNS. The ordinary suite kills rotations in one process
(tests/vault/test_rotation.py).
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.openai_server import FakeOpenAI, openai_server
from tests.journeys import leaks
from tests.journeys.processes import House, eventually, house
from tests.journeys.rekeying import KILLED, NEW
from tests.journeys.storm import Storm, end

SECRETS = int(os.environ.get("POLAR_REKEY_SECRETS", "0"))
KILLS = int(os.environ.get("POLAR_REKEY_KILLS", "100"))
TURNS = int(os.environ.get("POLAR_REKEY_TURNS", "200"))
pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(not SECRETS, reason="`make chaos` goes this way"),
]

#: Stands in the vault and goes to the vendor with every turn; nowhere else.
CANARY = "sk-canary-7d1f0c52e9b84a63"
#: Stands in every message: what must be found where the canary must not.
MARKER = "marker-58c2a1"
#: One rotation is killed, then it is calm so long. Units: seconds.
PAUSE = 0.2
PATIENCE = 600
#: Turns before the storm.
WARM = 8


@pytest.fixture
def vendor() -> Iterator[FakeOpenAI]:
    with openai_server() as server:
        server.accepted_keys = {CANARY}
        server.delay_seconds = 0.05
        yield server


@pytest.fixture
def storm(tmp_path: Path, vendor: FakeOpenAI) -> Iterator[Storm]:
    """A house with many secrets under its old key, serving with both keys."""
    with house(tmp_path, "seed_demo") as polar:
        built = Storm(polar, 1)
        document = tmp_path.parent / f"{tmp_path.name}-document.json"
        document.write_text(json.dumps(configuration(vendor.url)))
        done(polar, "storm")
        done(polar, "config", "import", "--file", str(document))
        document.unlink()
        done(polar, "fill", str(SECRETS))
        polar.env["JOURNEY_VAULT_KEYS"] = NEW
        for role in ("web", "worker1", "worker2"):
            built.start(role)
        try:
            assert eventually(lambda: built.send("/healthz")[0] == 200), polar.output()
            assert eventually(polar.working), polar.output()
            yield built
        finally:
            for process in built.roles.values():
                end(process)


def configuration(url: str) -> dict[str, object]:
    provider = {
        "kind": "openai_compatible",
        "baseUrl": url,
        "models": [{"name": "fake-1"}],
        "key": CANARY,
    }
    routes = {"routes": [{"provider": "openai", "model": "fake-1"}]}
    lanes = dict.fromkeys(("brain", "worker"), routes)
    sections = {"providers": {"openai": provider}, "lanes": lanes}
    return {"format": "polar-config/1", "sections": sections}


def done(polar: House, *words: str) -> None:
    """Run a harness process to its end, however many secrets there are."""
    assert polar.start(*words).wait(PATIENCE) == 0, f"{words} {polar.output()[-4000:]}"


def test_new_key_under_kills_while_turns_run_and_the_canary_stays(
    storm: Storm, vendor: FakeOpenAI
) -> None:
    polar = storm.polar
    warm(storm)
    begun = time.monotonic()
    turns = threading.Thread(target=submit, args=(storm,))
    turns.start()
    done(polar, "rotate_killed", str(KILLS), str(PAUSE))
    done(polar, "vault", "rotate")
    done(polar, "vault", "finish")
    turns.join(PATIENCE)
    assert storm.quiet(), polar.states()

    amid = check_turns(polar, vendor)
    told = check_secrets(polar)
    read = leaks.seek(polar, [CANARY], MARKER)
    sys.stdout.write(
        f"rekeying: {told} secrets, {KILLS} kills, {TURNS} turns, {amid} of them amid"
        f" the kills, {time.monotonic() - begun:.0f} s; canary sought in {read} bytes\n"
    )


def warm(storm: Storm) -> None:
    """Let both workers load what a turn needs, so that the storm meets them at work."""
    storm.submit([f"{MARKER} warm {number}" for number in range(WARM)])
    assert storm.quiet(), storm.polar.states()


def submit(storm: Storm) -> None:
    """Ask one turn after another, in step with the kills: however long these take,
    turns run from the first to the last of them."""
    for number in range(TURNS):
        behind = number * KILLS // TURNS
        assert eventually(lambda at=behind: len(kills(storm.polar)) >= at, PATIENCE)
        storm.ask(WARM + number, f"{MARKER} {number}")


def kills(polar: House) -> list[str]:
    """Return the moment of each kill that was."""
    noted = polar.log.with_name(KILLED)
    return noted.read_text().splitlines() if noted.exists() else []


def check_turns(polar: House, vendor: FakeOpenAI) -> int:
    """Every turn was answered by the vendor, who saw the right key and no other.

    Returns how many ended between the first and the last kill.
    """
    turns = polar.rows(
        "SELECT state, count(*) FROM runs_run WHERE kind = 'agents.turn' GROUP BY state"
    )
    assert turns == [("succeeded", WARM + TURNS)]
    assert len(vendor.requests) >= WARM + TURNS
    sent = {each["authorization"] for each in vendor.headers_seen}
    assert sent == {f"Bearer {CANARY}"}
    moments = kills(polar)
    assert len(moments) == KILLS
    amid = polar.rows(
        "SELECT count(*) FROM runs_run WHERE kind = 'agents.turn'"
        f" AND finished_at BETWEEN '{moments[0]}' AND '{moments[-1]}'"
    )
    assert amid[0][0] > TURNS * 0.5, "the storm was over before the turns were"
    return int(amid[0][0])


def check_secrets(polar: House) -> int:
    """None is on the old key; with the new one alone every one opens."""
    assert polar.rows("SELECT DISTINCT recipient FROM vault_wrap") == [("key:new",)]
    polar.env["JOURNEY_NO_OLD_KEY"] = "1"
    process = polar.start("open_all")
    assert process.wait(PATIENCE) == 0, polar.output()[-4000:]
    out = polar.folder / f"out{polar.processes.index(process)}.txt"
    told = json.loads(out.read_text().splitlines()[-1])
    assert told["unreadable"] == []
    assert told["secrets"] > SECRETS
    return int(told["secrets"])
