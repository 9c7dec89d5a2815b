"""Reports a Python service's own figures to GopherWatch: plain grpcio, generated from proto/metrics.proto.

A report waits in a bounded buffer until a receipt counts it: a stream without one is sent again, unchanged and in order,
and the server counts nothing twice. Nobody who calls `report` ever waits for the network.
"""

import collections
import itertools
import random
import socket
import threading
import time

import grpc

import metrics_pb2
import metrics_pb2_grpc

# A stream is closed so often for its receipt, in seconds.
RECEIPT_EVERY = 5.0
RECEIPT_WAIT = 20.0
# Reports kept while the server is away; then the oldest make room.
MAX_BUFFERED = 10_000
BACKOFF = (0.1, 5.0)


class Reporter:
    """Reports of one instance of one service, delivered by a thread of its own.

    `server` is "host:port"; `token` is what the server gave its agents, if it asks for one.
    """

    def __init__(self, server, service, instance=None, token=None):
        self.service = service
        self.instance = instance or socket.gethostname()
        self.dropped = 0
        self.acknowledged = 0
        self.rejected = 0
        self._sequences = itertools.count(1)
        # One numbering for as long as this object lives: a random number that is not 0.
        self._metadata = [("service-id", service), ("agent-epoch", str(random.randint(1, 2**64 - 1)))]
        if token:
            self._metadata.append(("authorization", f"Bearer {token}"))
        self._pending = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._stub = metrics_pb2_grpc.MetricsServiceStub(grpc.insecure_channel(server))
        self._thread = threading.Thread(target=self._deliver, name="gopherwatch", daemon=True)
        self._thread.start()

    def report(self, leaving=False, **metrics):
        """Reports figures of now, such as report(queue_length=3, request_count=1200)."""
        with self._changed:
            report = metrics_pb2.MetricReport(
                service_name=self.service,
                instance=self.instance,
                time_unix_nano=time.time_ns(),
                sequence=next(self._sequences),
                metrics=[metrics_pb2.Metric(name=name, value=value) for name, value in metrics.items()],
                leaving=leaving,
            )
            self._pending.append(report)
            if len(self._pending) > MAX_BUFFERED:
                self._pending.popleft()
                self.dropped += 1
            self._changed.notify_all()

    def close(self, timeout=3.0):
        """Says goodbye, so that the silence to come alerts nobody, and waits for the last receipt; whether it came."""
        self.report(leaving=True)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._pending

    def _deliver(self):
        backoff = BACKOFF[0]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if not self._pending:
                    return
            try:
                if self._stream() > 0:
                    backoff = BACKOFF[0]
                    continue
                problem = "the receipt covers no report"
            except grpc.RpcError as error:
                problem = f"{error.code().name}: {error.details()}"
            print(f"gopherwatch: cannot deliver: {problem}", flush=True)
            time.sleep(backoff * random.uniform(0.5, 1))
            backoff = min(2 * backoff, BACKOFF[1])

    def _stream(self):
        """One stream, from its first report to its receipt; how many reports that covers."""
        metadata = [*self._metadata, ("agent-time-unix-nano", str(time.time_ns()))]
        sent = []
        summary = self._stub.SendMetrics(
            self._reports(sent, time.monotonic() + RECEIPT_EVERY),
            metadata=metadata,
            timeout=RECEIPT_EVERY + RECEIPT_WAIT,
        )
        with self._changed:
            for report in sent[: summary.received]:
                # The oldest may have made room meanwhile.
                if self._pending and self._pending[0].sequence == report.sequence:
                    self._pending.popleft()
        self.acknowledged += summary.received
        self.rejected += summary.rejected
        return summary.received

    def _reports(self, sent, until):
        last = 0
        while True:
            with self._changed:
                due = next((report for report in self._pending if report.sequence > last), None)
                if due is None:
                    left = until - time.monotonic()
                    if self._closing or left <= 0:
                        return
                    self._changed.wait(left)
                    continue
            if time.monotonic() > until and sent:
                return
            last = due.sequence
            sent.append(due)
            yield due
