"""`python -m bench.calls COUNT THREADS outside|inside`: one of several callers.

Started by bench.gate on a database that is there already. Says "ready", waits for a
line, makes its calls, and tells when it began and ended and what CPU it took.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from . import stand


def main() -> int:
    count, threads, inside = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "inside"
    place = stand.build(
        os.environ["POLAR_BENCH_BACKEND"],
        os.environ["DATABASE_URL"],
        delay_seconds=0,
        has_tables=True,
    )
    from apps.gateway import services as gateway

    from . import gate

    def one(_: int) -> None:
        gateway.call(gate._request(place, inside=inside))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads * 4)))
        print("ready", flush=True)
        sys.stdin.readline()
        began, cpu = time.time(), time.process_time()
        list(pool.map(one, range(count)))
        ended, used = time.time(), time.process_time() - cpu
    print(json.dumps({"began": began, "ended": ended, "cpu": used}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
