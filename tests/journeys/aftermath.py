"""What must hold after a storm, seen from outside: store, receiver, sink, processes.

Source: docs/architecture.md, "What no storm may break"
"""

from typing import Any

from tests.journeys.outside import KEYED
from tests.journeys.storm import ANSWERS, MOST_FILES, MOST_MEGABYTES, Storm, plain

ENDED = {"succeeded", "waiting_operator", "dead_letter"}


def check(built: Storm, texts: dict[str, str]) -> None:
    """Shape of `texts`: what was asked of each run that a message was answered with."""
    check_intake(built, texts)
    check_effects(built, texts)
    check_ends(built)
    check_bounds(built)
    built.calm()
    check_store(built, len(texts))


def check_intake(built: Storm, texts: dict[str, str]) -> None:
    """I1: every acknowledged message has exactly one run."""
    turns = built.polar.rows("SELECT id FROM runs_run WHERE kind = 'agents.turn'")
    assert len(turns) == len(texts)
    assert {plain(run) for (run,) in turns} == set(map(plain, texts))
    assert set(built.answered) <= {200, *ANSWERS}, built.answered
    assert not built.bare, "a refusal for now did not say when to ask again"


def check_effects(built: Storm, texts: dict[str, str]) -> None:
    """I3: one effect for each run, and what may not be repeated was sent once."""
    received = built.received()
    states = {
        plain(run): state
        for run, state in built.polar.rows("SELECT id, state FROM runs_run")
    }
    for run, text in texts.items():
        keys = received.keys.get(run, set())
        sent = [received.times[key] for key in keys]
        done = states[plain(run)] == "succeeded"
        one = len(keys) == 1 or (not done and not keys)
        assert one, (run, text, keys, history(built, run))
        assert text == KEYED.partition(".")[2] or sum(sent) <= 1, (run, text, sent)
    assert set(received.keys) <= set(texts)


def check_ends(built: Storm) -> None:
    """I2: each run ended, or waits and says for what."""
    unexplained = built.polar.rows(
        "SELECT id, state, reason, error_code, error_detail FROM runs_run"
        " WHERE state <> 'succeeded'"
        " AND state <> 'waiting_operator' AND reason <> 'poison'"
    )
    assert unexplained == [], unexplained
    assert set(built.polar.states()) <= ENDED, built.polar.states()


def history(built: Storm, run: str) -> list[tuple[Any, ...]]:
    """What the log says of a run, for whoever must find out."""
    own = run if "-" in run and built.polar.url.startswith("postgres") else plain(run)
    return [
        *built.polar.rows(
            "SELECT type, decision, reason FROM audit_event"
            f" WHERE run_id = '{own}' ORDER BY run_seq"
        ),
        *built.polar.rows(
            "SELECT s.kind, s.state, s.error_code, s.result FROM agents_step s"
            " JOIN agents_turn t ON t.id = s.turn_id"
            f" WHERE t.run_id = '{own}' ORDER BY s.id"
        ),
    ]


def check_bounds(built: Storm) -> None:
    """I14: what is left running has not grown."""
    for role, (files, megabytes) in built.bounds().items():
        assert files <= MOST_FILES and megabytes <= MOST_MEGABYTES, (role, files)


def check_store(built: Storm, at_least: int) -> None:
    """I4 to I11, as an operator asks; and the sink has what was sealed."""
    polar = built.polar
    for words in (("audit", "seal"), ("audit", "push"), ("store", "verify")):
        assert polar.do(*words) == 0, polar.output()[-4000:]
    lines = (polar.folder / "sink.jsonl").read_text().splitlines()
    sealed = polar.rows("SELECT digest FROM audit_event WHERE gseq >= 0 ORDER BY gseq")
    assert len(lines) == len(sealed) > at_least
    assert all(digest in line for line, (digest,) in zip(lines, sealed, strict=True))
