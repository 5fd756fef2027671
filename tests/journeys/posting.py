"""`python -m tests.journeys.posting < plan`: the vendors' side of a storm of events.

A process of its own, so that what a delivery takes is not what the test's doubles of
the vendors do meanwhile. Plan: port, accounts by kind, and deliveries, each a
kind and a body, the last one first. Says how long each took, in seconds.
"""

import http.client
import json
import sys
import threading
import time
from typing import Any

from apps.channels.adapters.telegram_door import secret_of
from tests.fakes import slack_server as slack
from tests.fakes import telegram_server as telegram

POSTERS = 4


def post(port: int, kind: str, account: str, body: dict[str, Any]) -> float:
    """Send until it is taken, as a vendor does; return how long that took."""
    raw = json.dumps(body).encode()
    for _ in range(20):
        proof = (
            {"X-Telegram-Bot-Api-Secret-Token": secret_of(telegram.TOKEN)}
            if kind == "telegram"
            else slack.signed(raw)
        )
        headers = {"Content-Type": "application/json", **proof}
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", f"/hooks/{kind}/{account}/", raw, headers)
            status = connection.getresponse().status
        except OSError:
            status = 0
        finally:
            connection.close()
        took = time.monotonic() - began
        if status == 200:
            return took
        time.sleep(0.5)
    raise AssertionError(f"{kind} was not taken: {status}")


def main() -> int:
    plan = json.load(sys.stdin)
    todo, took, failed = plan["deliveries"], list[float](), list[str]()

    def work() -> None:
        while todo and not failed:
            try:
                kind, body = todo.pop()
            except IndexError:
                return
            try:
                took.append(post(plan["port"], kind, plan["accounts"][kind], body))
            except AssertionError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(POSTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"took": took, "failed": failed}, sys.stdout)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
