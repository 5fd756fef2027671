"""Processes are killed at random while work comes in: nothing lost, nothing twice.

`make chaos` sets the size: POLAR_STORM_RUNS, POLAR_STORM_KILLS, POLAR_STORM_SEED.
"""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.journeys import aftermath
from tests.journeys.storm import Storm, storm

pytestmark = pytest.mark.journey

RUNS = int(os.environ.get("POLAR_STORM_RUNS", "24"))
KILLS = int(os.environ.get("POLAR_STORM_KILLS", "4"))
SEED = int(os.environ.get("POLAR_STORM_SEED", "1"))
#: How long it is calm between two kills. Units: seconds.
PAUSE = (0.1, 1.0)
#: Three of four effects may be sent again under their key; one of four may not.
TEXTS = ["once" if number % 4 == 3 else "keyed" for number in range(RUNS)]


def test_storm_of_kills_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    with storm(tmp_path, SEED) as built:
        begun = time.monotonic()
        wind = threading.Thread(target=built.blow, args=(KILLS, PAUSE))
        wind.start()
        runs = built.submit(TEXTS, over=KILLS * 1.5)
        wind.join()
        assert built.quiet(), f"{built.polar.states()} {built.polar.output()[-4000:]}"
        tell(built, time.monotonic() - begun)

        assert sum(built.kills.values()) == KILLS
        aftermath.check(built, dict(zip(runs, TEXTS, strict=True)))


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
