"""Processes are killed at random while work comes in: nothing lost, nothing twice.

`make chaos` sets the size: POLAR_STORM_RUNS, POLAR_STORM_KILLS, POLAR_STORM_SEED.
"""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.journeys.outside import KEYED
from tests.journeys.storm import (
    ANSWERS,
    MOST_FILES,
    MOST_MEGABYTES,
    Storm,
    storm,
)

pytestmark = pytest.mark.journey

RUNS = int(os.environ.get("POLAR_STORM_RUNS", "24"))
KILLS = int(os.environ.get("POLAR_STORM_KILLS", "4"))
SEED = int(os.environ.get("POLAR_STORM_SEED", "1"))
#: How long it is calm between two kills. Units: seconds.
PAUSE = (0.1, 1.0)
#: Three of four effects may be sent again under their key; one of four may not.
TEXTS = ["once" if number % 4 == 3 else "keyed" for number in range(RUNS)]
ENDED = {"succeeded", "waiting_operator", "dead_letter"}


def test_storm_of_kills_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    with storm(tmp_path, SEED) as built:
        begun = time.monotonic()
        wind = threading.Thread(target=built.blow, args=(KILLS, PAUSE))
        wind.start()
        runs = built.submit(TEXTS, over=KILLS * 1.5)
        wind.join()
        still = built.quiet(60 + RUNS / 4)
        assert still, f"{built.polar.states()} {built.polar.output()[-4000:]}"
        tell(built, time.monotonic() - begun)

        check_intake(built, runs)
        check_effects(built, runs)
        check_ends(built)
        check_bounds(built)
        built.calm()
        check_store(built)


def tell(built: Storm, seconds: float) -> None:
    """Say what the storm was, for those who run it at full size."""
    received = built.received()
    sys.stdout.write(
        f"storm: seed {SEED}, {RUNS} runs, {sum(built.kills.values())} kills"
        f" {dict(built.kills)}, {seconds:.0f} s, {built.lost_answers} answers lost,"
        f" answers {dict(built.answered)}, ends {built.polar.states()},"
        f" effects {len(received.times)},"
        f" sent again under their key {sum(n - 1 for n in received.times.values())}\n"
    )


def check_intake(built: Storm, runs: list[str]) -> None:
    """I1: every acknowledged message has exactly one run."""
    assert len(set(runs)) == RUNS
    assert built.polar.rows("SELECT count(*) FROM runs_run WHERE kind = 'agents.turn'")[
        0
    ] == (RUNS,)
    assert set(built.answered) <= ANSWERS, built.answered


def check_effects(built: Storm, runs: list[str]) -> None:
    """I3: one effect for each run, and what may not be repeated was sent once."""
    received = built.received()
    states = {
        str(run).replace("-", ""): state
        for run, state in built.polar.rows("SELECT id, state FROM runs_run")
    }
    for run, text in zip(runs, TEXTS, strict=True):
        keys = received.keys.get(run, set())
        sent = [received.times[key] for key in keys]
        done = states[run.replace("-", "")] == "succeeded"
        assert len(keys) == 1 or (not done and not keys), (run, text, keys)
        assert text == KEYED.partition(".")[2] or sum(sent) <= 1, (run, text, sent)
    assert set(received.keys) <= set(runs)


def check_ends(built: Storm) -> None:
    """I2: each run ended, or waits and says for what."""
    assert set(built.polar.states()) <= ENDED, built.polar.states()
    unexplained = built.polar.rows(
        "SELECT id, state FROM runs_run WHERE state <> 'succeeded'"
        " AND state <> 'waiting_operator' AND reason <> 'poison'"
    )
    assert unexplained == []


def check_bounds(built: Storm) -> None:
    """I14: what is left running has not grown."""
    for role, (files, megabytes) in built.bounds().items():
        assert files <= MOST_FILES and megabytes <= MOST_MEGABYTES, (role, files)


def check_store(built: Storm) -> None:
    """I4 to I11, as an operator asks; and the sink has what was sealed."""
    polar = built.polar
    for words in (("audit", "seal"), ("audit", "push"), ("store", "verify")):
        assert polar.do(*words) == 0, polar.output()[-4000:]
    lines = (polar.folder / "sink.jsonl").read_text().splitlines()
    sealed = polar.rows("SELECT digest FROM audit_event WHERE gseq >= 0 ORDER BY gseq")
    assert len(lines) == len(sealed) > RUNS
    assert all(digest in line for line, (digest,) in zip(lines, sealed, strict=True))
