"""The evidence of a drill: one signed file that a stranger can check without Polar.

The file is canonical JSON: a signed note (C2SP) that names the grade and the
SHA-256 of every part, the verifier key, and the parts themselves: the journals of
Chaos Toolkit, the facts, the report, and the clones' logs as exports that
`polar-verify` recomputes. `polar-verify evidence FILE` does all of it again.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from django.conf import settings

from apps.audit import services as audit
from apps.reliability.engine import cloning
from apps.reliability.errors import EvidenceBroken

FORMAT = "polar-evidence/v1"
MAIN = "main"
PARTS = (MAIN, "control")


def grade(main: dict[str, Any], control: dict[str, Any]) -> str:
    """Judge by Chaos Toolkit's own verdicts; the control must deviate.

    A rehearsal that did not begin in its steady state, or whose steps were not all
    done, proves nothing, whatever its verdict says: Chaos Toolkit calls an experiment
    that never began `completed` and not deviated.
    """
    for journal in (main, control):
        if not _was_played(journal):
            return "failed"
    return "passed" if control["deviated"] and not main["deviated"] else "deviated"


def grade_live(main: dict[str, Any]) -> str:
    """Judge a live drill: there is no control, so it proves less."""
    if not _was_played(main):
        return "failed"
    return "deviated" if main["deviated"] else "passed"


def _was_played(journal: dict[str, Any]) -> bool:
    steps, states = journal.get("run", []), journal.get("steady_states") or {}
    before, after = (states.get(when) or {} for when in ("before", "after"))
    return (
        journal.get("status") == "completed"
        and before.get("steady_state_met") is True
        and after.get("steady_state_met") is (not journal.get("deviated"))
        and len(steps) == len(journal["experiment"]["method"])
        and all(step.get("status") == "succeeded" for step in steps)
    )


def journal_of(folder: Path) -> dict[str, Any]:
    """Raises: EvidenceBroken when the rehearsal left none."""
    try:
        found = json.loads((folder / cloning.JOURNAL).read_text())
    except (OSError, ValueError) as error:
        raise EvidenceBroken(f"The rehearsal left no journal: {error}") from error
    return dict(found)


def facts_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / cloning.FACTS).read_text()))
    except (OSError, ValueError):
        return {}


def write(path: Path, folders: dict[str, Path], report: dict[str, Any]) -> str:
    """Sign and write the evidence. Returns its SHA-256."""
    files = {"report.json": _text(report)}
    for part, folder in folders.items():
        for name in (cloning.JOURNAL, cloning.FACTS):
            files[f"{part}/{name}"] = (folder / name).read_text()
        for each in sorted((folder / cloning.EXPORT).iterdir()):
            files[f"{part}/{cloning.EXPORT}/{each.name}"] = each.read_text()
    lines = [FORMAT, f"drill {report['drill']}", f"grade {report['grade']}"]
    for name in sorted(files):
        lines.append(f"{_digest(files[name].encode())} {name}")
    whole = {
        "files": files,
        "manifest": _note("\n".join(lines) + "\n"),
        "public-key": audit.public_key(),
    }
    raw = (_text(whole) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".tmp")
    draft.write_bytes(raw)
    draft.replace(path)
    return _digest(raw)


def path_of(drill_id: Any) -> Path:
    return settings.POLAR_DRILLS_DIR / "evidence" / f"{drill_id}.json"


def check(path: Path, sha256: str) -> dict[str, Any]:
    """Read evidence that this install wrote. Raises: EvidenceBroken."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise EvidenceBroken(f"The evidence cannot be read: {error}") from error
    if _digest(raw) != sha256:
        raise EvidenceBroken("The file is not the one that the log names.")
    return dict(json.loads(raw))


def _note(text: str) -> str:
    """Sign a text as the log's notes are signed: https://c2sp.org/signed-note"""
    name, hashed, _ = audit.public_key().split("+", 2)
    blob = bytes.fromhex(hashed) + audit.sign(text.encode())
    return f"{text}\n\u2014 {name} {base64.b64encode(blob).decode()}\n"


def _text(said: dict[str, Any]) -> str:
    return json.dumps(said, sort_keys=True, separators=(",", ":"), default=str)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
