"""A bundle that stands alone: events, checkpoints, key, and a signed manifest.

`events.jsonl` has one line {"body","gseq","hash"} per event; `tree.json` the
frontier before the first event; `checkpoints.jsonl` the notes of the range and one
for its end; `public-key` the verifier key. `manifest` is a signed note that lists
the SHA-256 of each, so a changed byte anywhere is refused.
"""

import hashlib
import json
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from apps.audit.engine import keys, ocsf, sealing, tiles
from apps.audit.models import Checkpoint, Event, Head
from apps.common.errors import Invalid

FILES = ("checkpoints.jsonl", "events.jsonl", "public-key", "tree.json")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was exported."""

    first: int
    end: int
    root: str
    epoch: str

    def as_data(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "from": self.first,
            "root": self.root,
            "to": self.end,
        }


def export(out_dir: Path, first: int, end: int | None) -> Bundle:
    """Write the bundle. Raises: Invalid."""
    head = Head.load()
    end = head.size if end is None else end
    if not 0 <= first <= end <= head.size:
        raise Invalid(
            f"The log has events 0 to {head.size}; [{first}, {end}) is not in it"
        )
    out_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(out_dir.iterdir()):
        raise Invalid(f"{out_dir} is not empty")
    reader = tiles.Reader()
    bundle = Bundle(first, end, reader.range_root(0, end).hex(), head.epoch)
    _write_events(out_dir / "events.jsonl", first, end)
    _write_notes(out_dir / "checkpoints.jsonl", bundle)
    (out_dir / "public-key").write_text(keys.signer().verifier_key + "\n")
    before = [node.hex() for node in _frontier(reader, first)]
    (out_dir / "tree.json").write_text(json.dumps({"frontier": before}) + "\n")
    (out_dir / "manifest").write_text(_manifest(out_dir, bundle))
    return bundle


def zipped(first: int, end: int) -> tuple[IO[bytes], Bundle]:
    """Write the bundle into one file that is gone once it is closed.

    Raises: Invalid.
    """
    with tempfile.TemporaryDirectory(prefix="polar-export-") as folder:
        place = Path(folder) / "export"
        bundle = export(place, first, end)
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for each in sorted(place.iterdir()):
                packed.write(each, f"polar-export-{first}-{end}/{each.name}")
    file.seek(0)
    return file, bundle


def write_ocsf(path: Path, first: int, end: int | None) -> int:
    """Write sealed events [first, end) as OCSF lines. Returns how many.

    Raises: Invalid where the file exists already.
    """
    size = Head.load().size
    end = size if end is None else min(end, size)
    rows = Event.objects.filter(gseq__gte=first, gseq__lt=end).order_by("gseq")
    written = 0
    try:
        with path.open("x") as file:
            for event in rows.iterator(chunk_size=2000):
                file.write(f"{ocsf.line(event)}\n")
                written += 1
    except FileExistsError as error:
        raise Invalid(f"{path} exists already") from error
    return written


def _frontier(reader: tiles.Reader, size: int) -> list[bytes]:
    """Shape: one root per set bit of the size, lowest level first."""
    roots: list[bytes] = []
    end = size
    while end:
        count = end & -end
        roots.append(reader.range_root(end - count, end))
        end -= count
    return roots


def _write_events(path: Path, first: int, end: int) -> None:
    rows = Event.objects.filter(gseq__gte=first, gseq__lt=end).order_by("gseq")
    with path.open("w") as file:
        for gseq, body, digest in rows.values_list("gseq", "body", "digest").iterator(
            chunk_size=2000
        ):
            file.write(_json({"body": body, "gseq": gseq, "hash": digest}))


def _write_notes(path: Path, bundle: Bundle) -> None:
    rows = Checkpoint.objects.filter(size__gte=bundle.first, size__lt=bundle.end)
    with path.open("w") as file:
        for size, note in rows.order_by("size", "id").values_list("size", "note"):
            file.write(_json({"note": note, "size": size}))
        note = sealing.note_for(bundle.end, bundle.root, bundle.epoch)
        file.write(_json({"note": note, "size": bundle.end}))


def _manifest(out_dir: Path, bundle: Bundle) -> str:
    lines = ["polar-export/v1", f"from {bundle.first}", f"to {bundle.end}"]
    for name in FILES:
        with (out_dir / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest} {name}")
    return keys.signer().note("\n".join(lines) + "\n")


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"
