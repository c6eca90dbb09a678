"""A router: each request goes to the node that leads the group of its key."""

import time

import grpc
from keyviz.v1 import kv_pb2, kv_pb2_grpc

from .errors import OutcomeUnknown

# The watch tells of a new leader within a fraction of a second.
WATCH_WITHIN = 1.0
# The pause before a request that certainly did nothing is sent again.
AGAIN_AFTER = 0.05


class Router:
    """Sends requests by a watch of routes with leaders, and keeps count of wrong leaders.

    The rule that any router can follow: where another node answered than the one that the watch
    named, which the answer says (`keyviz-leader`), the watch is behind. Before the next request for
    that group, wait until the watch names that node too. If it does not in time, go by the watch
    where it tells of another change, and else by the answer. So of each change a router learns by
    one request at most, and of a group it never sends two in a row to a wrong leader.
    """

    def __init__(self, client, watch):
        self.client = client
        self.watch = watch
        self.doubts = {}
        self.sent = 0
        # By group: requests that the leader served to which they were sent.
        self.led = {}
        self.wrong = 0
        # By group: requests to a wrong leader one after the other, of one change. A request that
        # goes where the last answer said, and finds another leader by now, met another change.
        self.wrong_in_a_row = {}
        self.most_wrong_in_a_row = 0
        self.hinted = {}

    def put(self, key, value):
        request = kv_pb2.PutRequest(key=key, value=value)
        self._send(key, lambda stub: stub.Put, request)

    def get(self, key):
        """The value; None where there is no such key."""
        answer = self._send(key, lambda stub: stub.Get, kv_pb2.GetRequest(key=key))
        return answer.value if answer.HasField("value") else None

    def delete(self, key):
        self._send(key, lambda stub: stub.Delete, kv_pb2.DeleteRequest(key=key))

    def _send(self, key, call, request):
        deadline = time.monotonic() + self.client.timeout
        others = 0
        while True:
            group, address = self._choose(key)
            named = address is not None
            if not named:
                # Nobody is known to lead: any node finds out.
                address = self.client.addresses[others % len(self.client.addresses)]
                others += 1
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no node served a request for {key!r}")
            stub = kv_pb2_grpc.KvStub(self.client.channel(address))
            self.sent += 1
            try:
                answer, sent = call(stub).with_call(
                    request, metadata=self.client.metadata, timeout=left
                )
            except grpc.RpcError as error:
                self._failed(error, request, group, key, address, named)
                time.sleep(AGAIN_AFTER)
                continue
            hints = [value for name, value in sent.initial_metadata() if name == "keyviz-leader"]
            if named:
                self._judge(group, key, address, hints)
            return answer

    def _choose(self, key):
        """The key's group, and the node that leads it; None for either that is unknown."""
        group, address = self.watch.led_by(key)
        doubt = self.doubts.pop(group, None)
        if doubt is None:
            return group, address
        doubted, was, hint = doubt

        def changed(table):
            return table.led_by(doubted) != was and table.leader_of(doubted)

        def agrees(table):
            return changed(table) and hint in (None, table.leader_of(doubted))

        agreed = self.watch.wait_for(agrees, WATCH_WITHIN)
        if self.watch.led_by(doubted)[0] != group:
            # The key had moved to another group: of the leader of this one that says nothing.
            self.wrong_in_a_row[group] = 0
        if agreed or self.watch.wait_for(changed, 0):
            return self.watch.led_by(key)
        return group, hint

    def _judge(self, group, key, address, hints):
        if not hints:
            self.led[group] = self.led.get(group, 0) + 1
            self.wrong_in_a_row[group] = 0
            self.hinted.pop(group, None)
            return
        self.wrong += 1
        followed = self.hinted.get(group) == address
        self.wrong_in_a_row[group] = 1 if followed else self.wrong_in_a_row.get(group, 0) + 1
        self.hinted[group] = hints[0]
        self.most_wrong_in_a_row = max(self.most_wrong_in_a_row, self.wrong_in_a_row[group])
        self.doubts[group] = (key, (group, address), hints[0])

    def _failed(self, error, request, group, key, address, named):
        """Raises, unless the request may be sent again."""
        certain = ("keyviz-not-applied", "true") in tuple(error.trailing_metadata() or ())
        gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        reads = isinstance(request, kv_pb2.GetRequest)
        if not gone and error.code() != grpc.StatusCode.UNKNOWN:
            raise error
        if not reads and not certain:
            raise OutcomeUnknown(error.details()) from error
        if named:
            # It may be down: any other is asked while the watch says nothing else.
            self.doubts[group] = (key, (group, address), None)
