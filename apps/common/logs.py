"""Logs as one JSON object per line, with trace id, without secrets."""

import json
import logging
from typing import Any

from . import ids, redaction

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class ContextFilter(logging.Filter):
    """Adds the ids of the work at hand and cuts out every leased secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.trace_id = getattr(record, "trace_id", "") or ids.current_trace_id()
        record.request_id = ids.current_request_id()
        record.msg = redaction.scrub(record.getMessage())
        record.args = ()
        return True


class JsonFormatter(logging.Formatter):
    """Writes a record and its extra fields as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        extras = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        line |= {key: redaction.scrub(str(value)) for key, value in extras.items()}
        if record.exc_info:
            line["stack"] = redaction.scrub(self.formatException(record.exc_info))
        return json.dumps(
            {key: value for key, value in line.items() if value not in ("", None)},
            ensure_ascii=False,
        )
