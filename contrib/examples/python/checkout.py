"""A service that reports itself: checkout.py SERVER SECONDS, such as checkout.py 127.0.0.1:50051 60."""

import random
import sys
import time

from reporter import Reporter


def main():
    server, seconds = sys.argv[1], float(sys.argv[2])
    reporter = Reporter(server, "checkout", instance="python-1")
    began, requests = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        requests += 7
        reporter.report(request_count=requests, queue_length=random.randint(0, 5))
        time.sleep(0.1)
    requests += 7
    reporter.report(request_count=requests, queue_length=42)
    is_delivered = reporter.close()
    print(f"{requests} requests reported, {reporter.acknowledged} reports receipted, {reporter.dropped} dropped")
    return 0 if is_delivered else 1


if __name__ == "__main__":
    sys.exit(main())
