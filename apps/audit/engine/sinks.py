"""The file sink: export records as JSONL, acknowledged without gaps."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from apps.audit.engine import journal
from apps.audit.errors import SinkRefused
from apps.audit.ports import Keeping, Line


class FileSink:
    """Appends to POLAR_SINK_FILE; off when that is empty."""

    patience_seconds = 0.0

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path

    def is_on(self) -> bool:
        return self._path() not in ("", ".")

    def keeping(self) -> Keeping:
        path = Path(self._path())
        return Keeping(
            is_immutable=False, detail=f"{path}: whoever may write it may change it"
        )

    def last_contiguous_seq(self) -> int | None:
        return self._last(Path(self._path())) if self.is_on() else None

    def append(self, lines: Sequence[Line]) -> int:
        path = Path(self._path())
        with journal.locked(path.parent):
            last = self._last(path)
            for place, line in enumerate(lines, start=last + 1):
                if line.seq != place:
                    raise SinkRefused(
                        f"The sink holds events up to {last}", last_contiguous_seq=last
                    )
            journal.append(path, [line.text for line in lines])
        return last + len(lines)

    def fork(self, *, epoch: str, seq: int) -> None:
        path = Path(self._path())
        with journal.locked(path.parent):
            mark = {"epoch": epoch, "fork": seq}
            journal.append(path, [json.dumps(mark, sort_keys=True)])

    def _last(self, path: Path) -> int:
        record = journal.last(path)
        if record is None:
            return -1
        if "fork" in record:
            return int(record["fork"]) - 1
        return int(record["metadata"]["sequence"])
