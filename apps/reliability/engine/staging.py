"""A drill as people follow it: its seven stages, who answered, and what was probed.

Hides: how the lines of a notebook say how far a drill is. Nothing is judged here;
the verdict is the drill's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.providers.models import Lane
from apps.reliability.models import DrillRun, DrillStep

FAULT, RECOVERY = "Fault: ", "Recovery: "
#: The stage that a drill on the install itself has not.
CONTROL = "Negative control"
#: Lanes as their answers are drawn, and those that nobody gave.
DRAWN = (*Lane.values[::-1], "none")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. Shape: tone and icon are words of the look."""

    title: str
    said: str
    tone: str
    icon: str
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the answers of one moment. Units: per cent across."""

    lane: str
    count: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Who answered at one time of one part."""

    part: str
    when: str
    turns: int
    shares: list[Share]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one probe found in the rehearsal and in the negative control."""

    name: str
    found: str
    held: bool
    control: str
    control_held: bool | None


@dataclass(frozen=True, slots=True)
class Part:
    """The lines of the rehearsal or of its control, cut at the fault."""

    before: list[DrillStep]
    fault: DrillStep | None
    probes: list[DrillStep]
    recovery: DrillStep | None
    after: list[DrillStep]


def cut(steps: Sequence[DrillStep], part: str) -> Part:
    """Cut one part's lines at its fault, its probes and its recovery."""
    lines = [step for step in steps if step.part == part]
    fault = next((n for n, s in enumerate(lines) if s.text.startswith(FAULT)), None)
    if fault is None:
        return Part(lines, None, [], None, [])
    later = lines[fault + 1 :]
    probes = [step for step in later if "probe" in step.data]
    last = max((later.index(step) for step in probes), default=-1)
    recovery = next((s for s in later if s.text.startswith(RECOVERY)), None)
    return Part(lines[:fault], lines[fault], probes, recovery, later[last + 1 :])


def stages(drill: DrillRun, steps: Sequence[DrillStep]) -> list[Stage]:
    """Say of each stage what it found, and which is under way."""
    main, control = cut(steps, "main"), cut(steps, "control")
    is_control = any(step.part == "control" for step in steps)
    is_over, verdict = drill.is_over, drill.verdict
    held = sum(bool(step.data["held"]) for step in main.probes)
    probed, asked = f"{held} of {len(main.probes)} held", len(main.probes)
    done = is_control or bool(verdict)
    reached = [
        bool(main.fault),
        bool(main.fault),
        bool(main.after) or done,
        bool(main.recovery and main.after) or done,
        done,
        bool(verdict),
        bool(drill.evidence_sha256),
    ]
    deviated = verdict.get("control", {}).get("deviated")
    said = [
        _lanes_said(main.before) or "measured before",
        main.fault.text.removeprefix(FAULT) if main.fault else "what is broken",
        probed if asked else "what must hold",
        main.recovery.text.removeprefix(RECOVERY) if main.recovery else "put right",
        _lanes_said(main.after) or "measured after",
        _control_said(control, deviated),
        "signed, in the log" if drill.evidence_sha256 else "signed and kept",
    ]
    bad = [False, False, held < asked, False, False, deviated is False, False]
    now = None if is_over else reached.index(False) if False in reached else None
    return [
        _stage(place, said[place], is_reached, bad[place], place == now, is_over)
        for place, is_reached in enumerate(reached)
        if not (drill.is_live and TITLES[place] == CONTROL)
    ]


TITLES = (
    "Steady state, before",
    "Fault",
    "Probes",
    "Recovery",
    "Steady state, after",
    CONTROL,
    "Evidence",
)


def _stage(
    place: int, said: str, is_reached: bool, is_bad: bool, is_now: bool, is_over: bool
) -> Stage:
    tone, icon = "wait", "queued"
    if is_now:
        tone, icon = "live", "running"
    elif is_bad:
        tone, icon = "critical", "critical"
    elif is_reached:
        tone, icon = "ok", "seal" if place == len(TITLES) - 1 else "ok"
    elif is_over:
        tone, icon = "off", "skipped"
    return Stage(TITLES[place], said, tone, icon, is_now)


def _control_said(control: Part, deviated: bool | None) -> str:
    if deviated is not None:
        return "deviated, as it must" if deviated else "held, so it proves nothing"
    lost = sum(not step.data["held"] for step in control.probes)
    if control.probes:
        return f"{lost} of {len(control.probes)} deviate so far"
    return "without its protection, must deviate"


def _lanes_said(steps: Sequence[DrillStep]) -> str:
    return next((step.text for step in reversed(steps) if "lanes" in step.data), "")


def moments(steps: Sequence[DrillStep]) -> list[Moment]:
    """Who answered before, during and after the fault, in each part."""
    found = []
    for part in ("main", "control"):
        lines = cut(steps, part)
        fault_at = lines.fault.at_ms if lines.fault else None
        for step in steps:
            if step.part == part and "lanes" in step.data:
                found.append(_moment(part, step, fault_at, lines.recovery))
    return found


def _moment(
    part: str, step: DrillStep, fault_at: int | None, recovery: DrillStep | None
) -> Moment:
    when = "before" if fault_at is None or step.at_ms < fault_at else "during"
    if recovery is not None and step.at_ms >= recovery.at_ms:
        when = "after"
    lanes = {lane: int(step.data["lanes"].get(lane, 0)) for lane in DRAWN}
    turns, x, shares = sum(lanes.values()), 0.0, []
    for lane, count in lanes.items():
        if count:
            width = round(count * 100 / turns, 2)
            shares.append(Share(lane, count, round(x, 2), width))
            x += width
    return Moment(part, when, turns, shares)


def probes(steps: Sequence[DrillStep]) -> list[Probe]:
    """Each probe of the rehearsal beside what the control made of it."""
    controls = {step.data["probe"]: step for step in cut(steps, "control").probes}
    found = []
    for step in cut(steps, "main").probes:
        name = str(step.data["probe"])
        control = controls.get(name)
        found.append(
            Probe(
                name,
                step.text,
                bool(step.data["held"]),
                control.text if control else "",
                bool(control.data["held"]) if control else None,
            )
        )
    return found
