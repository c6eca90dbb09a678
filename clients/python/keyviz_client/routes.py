"""The routes of a cluster, kept current by WatchRoutes."""

import bisect
import threading
import time

import grpc
from keyviz.v1 import routes_pb2, routes_pb2_grpc

AGAIN_AFTER = 0.2


class RouteTable:
    """All routes as of one catalog version, and the leaders of their groups."""

    def __init__(self):
        self.version = 0
        self.cluster_id = ""
        self.routes = {}
        self.starts = []
        self.by_id = {}
        self.leaders = {}
        self.partial = []

    def take(self, message):
        """Takes a message of the watch. True: the table is whole and current as of `version`."""
        if message.cluster_id and message.cluster_id != self.cluster_id:
            # Groups of another cluster are others.
            self.cluster_id = message.cluster_id
            self.leaders = {}
        event = message.WhichOneof("event")
        if event == "snapshot":
            self.partial.extend(message.snapshot.routes)
            if message.snapshot.more:
                return False
            self.routes = {bytes(route.start): route for route in self.partial}
            self.by_id = {route.route_id: bytes(route.start) for route in self.partial}
            self.starts = sorted(self.routes)
            self.partial = []
            self.version = message.snapshot.catalog_version
        elif event == "deltas":
            for delta in message.deltas.deltas:
                self.apply(delta)
        elif event == "progress":
            self.version = max(self.version, message.progress.catalog_version)
        elif event == "leaders":
            if message.leaders.all:
                self.leaders = {}
            for leader in message.leaders.leaders:
                self.leaders[leader.group_id] = leader
        return True

    def apply(self, delta):
        """Takes a change; a sorted list and two tables, so that it costs little."""
        if delta.catalog_version != self.version + 1:
            raise ValueError(f"version {delta.catalog_version} does not follow {self.version}")
        for route_id in delta.retired:
            start = self.by_id.pop(route_id, None)
            if start is None:
                raise ValueError(f"route {route_id} was retired, which is not in the table")
            del self.routes[start]
            del self.starts[bisect.bisect_left(self.starts, start)]
        for route in delta.created:
            start = bytes(route.start)
            if start in self.routes:
                raise ValueError(f"route {route.route_id} begins where another one does")
            self.routes[start] = route
            self.by_id[route.route_id] = start
            bisect.insort(self.starts, start)
        self.version = delta.catalog_version

    def route_of(self, key):
        """The route that holds a key; None before the first table."""
        at = bisect.bisect_right(self.starts, key) - 1
        return self.routes[self.starts[at]] if at >= 0 else None

    def led_by(self, key):
        """The key's group, and the address of its leader; None for either that is unknown."""
        route = self.route_of(key)
        if route is None:
            return None, None
        leader = self.leaders.get(route.group_id)
        known = leader is not None and leader.HasField("node_id")
        return route.group_id, leader.address if known else None

    def leader_of(self, key):
        """The address of the leader of the key's group; None while it is unknown."""
        return self.led_by(key)[1]

    def check(self):
        """Raises unless the routes cover the key space without gap or overlap."""
        reached = b""
        for start in self.starts:
            if reached is None or start != reached:
                raise ValueError(f"the routes have a gap or overlap at {start!r}")
            route = self.routes[start]
            reached = bytes(route.end) if route.HasField("end") else None
        if reached is not None:
            raise ValueError("the routes end before the key space does")


class RouteWatch:
    """Follows the routes in a thread until it is closed; goes on at another node when one stops."""

    def __init__(self, client, leaders=True):
        self.client = client
        self.leaders = leaders
        self.table = RouteTable()
        self.changed = threading.Condition()
        self.resets = 0
        self.streams = 0
        self.error = None
        self.closed = False
        self.call = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        if not self.wait_for(lambda table: table.version > 0, client.timeout):
            self.close()
            raise TimeoutError(f"no node sent its routes: {self.error}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed = True
        if self.call:
            self.call.cancel()
        self.thread.join(5)

    def wait_for(self, claim, timeout=10.0):
        """Waits until `claim(table)` holds; whether it does."""
        with self.changed:
            return self.changed.wait_for(lambda: claim(self.table), timeout)

    def route_of(self, key):
        with self.changed:
            return self.table.route_of(key)

    def leader_of(self, key):
        with self.changed:
            return self.table.leader_of(key)

    def led_by(self, key):
        with self.changed:
            return self.table.led_by(key)

    def _run(self):
        at = 0
        while not self.closed:
            channel = self.client.channels[at % len(self.client.channels)]
            try:
                self._follow(channel)
            except (grpc.RpcError, ValueError) as error:
                self.error = error
                if isinstance(error, ValueError):
                    # The table is fetched anew.
                    with self.changed:
                        self.table = RouteTable()
            at += 1
            time.sleep(AGAIN_AFTER)

    def _follow(self, channel):
        table = self.table
        table.partial = []
        request = routes_pb2.WatchRoutesRequest(
            after_version=table.version, cluster_id=table.cluster_id, leaders=self.leaders
        )
        stub = routes_pb2_grpc.RoutesStub(channel)
        self.call = stub.WatchRoutes(request, metadata=self.client.metadata)
        self.streams += 1
        for message in self.call:
            with self.changed:
                if message.HasField("snapshot") and message.snapshot.reset:
                    self.resets += not message.snapshot.more
                if table.take(message):
                    self.changed.notify_all()
