#!/usr/local/bin/python
"""Before Envoy is ended: no new connections, those there are told to go (GOAWAY), what is under way may end.

    drain.py SECONDS [http://HOST:PORT]     # of its admin interface; after SECONDS at most SIGTERM cuts the rest

Envoy's admin interface at 127.0.0.1:9901 does it: https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

import sys
import time
import urllib.request

ADMIN = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:9901"
# Endpoints hear of the end first, or callers would come to a closed door.
NEWS_SECONDS = 5.0


def under_way() -> int:
    """Requests that have no answer yet."""
    counters = urllib.request.urlopen(f"{ADMIN}/stats?filter=^http.headrace.downstream_rq_active$", timeout=5)
    with counters as answer:
        return int(answer.read().split()[-1])


def main() -> None:
    """Drains."""
    deadline = time.monotonic() + float(sys.argv[1])
    time.sleep(min(NEWS_SECONDS, float(sys.argv[1])))
    for step in ("healthcheck/fail", "drain_listeners?graceful&skip_exit"):
        urllib.request.urlopen(urllib.request.Request(f"{ADMIN}/{step}", method="POST"), timeout=5).close()
    while time.monotonic() < deadline and under_way():
        time.sleep(0.2)


if __name__ == "__main__":
    main()
