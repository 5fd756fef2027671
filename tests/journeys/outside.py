"""The world outside: a receiver that writes down what reaches it, and its tools.

    python -m tests.journeys.outside PORT FILE [SECONDS]

The receiver is a process of its own that no storm kills; each effect is one line,
`key run`, written before it is answered.
"""

import json
import os
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: What the two tools are called, and what a message says to have one used.
KEYED, ONCE = "outside.keyed", "outside.once"
_LOCK = threading.Lock()


def serve(port: int, path: Path, seconds: float) -> None:
    """Receive until killed; each effect takes so long."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 (the library's name)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            line = f"{self.headers['Idempotency-Key']} {body['run']}\n"
            with _LOCK, path.open("a") as log:
                log.write(line)
            time.sleep(seconds)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()


class Received:
    """What the receiver wrote down."""

    def __init__(self, path: Path) -> None:
        lines = [line.split() for line in path.read_text().splitlines()]
        #: How often each key came.
        self.times = Counter(key for key, _ in lines)
        self.keys: dict[str, set[str]] = defaultdict(set)
        for key, run in lines:
            self.keys[run].add(key)


def plug() -> None:
    """Give this process the tools that reach the receiver."""
    from apps.extensions.ports import NativeTool, native_tools
    from apps.gateway.ports import EffectClass

    for name, effect in (
        (KEYED, EffectClass.KEYED),
        (ONCE, EffectClass.NON_REPEATABLE),
    ):
        tool = NativeTool(
            capability_id=name,
            title=name,
            description="Reach the outside.",
            input_schema={"type": "object", "additionalProperties": False},
            fn=_reach,
            effect_class=effect,
        )
        native_tools.register(tool)


def _reach(arguments: Any, context: Any) -> dict[str, str]:
    request = urllib.request.Request(  # noqa: S310 (loopback)
        os.environ["JOURNEY_RECEIVER"],
        json.dumps({"run": str(context.run_id)}).encode(),
        {"Idempotency-Key": context.idempotency_key},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        answer.read()
    return {"said": "received"}


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
