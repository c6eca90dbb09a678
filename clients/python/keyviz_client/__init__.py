"""A client of a keyviz cluster. The stubs in keyviz.v1 come from make_stubs.py."""

import grpc
from keyviz.v1 import capabilities_pb2, cluster_pb2, cluster_pb2_grpc, keyviz_pb2, keyviz_pb2_grpc
from keyviz.v1 import kv_pb2, kv_pb2_grpc, loads_pb2, routes_pb2, routes_pb2_grpc

from .errors import OutcomeUnknown
from .router import Router
from .routes import RouteTable, RouteWatch

__all__ = ["Client", "OutcomeUnknown", "RouteTable", "RouteWatch", "Router"]

SERIES = {"reads": 1, "writes": 2, "read-bytes": 3, "write-bytes": 4}
GROUPINGS = {"route": 1, "group": 2, "leader": 3, "node": 4, "prefix": 5}
RANKS = {"cost": 1, "reads": 2, "writes": 3, "read-bytes": 4, "write-bytes": 5}
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Client:
    """Calls any node of a cluster; the next one where a node does not answer."""

    def __init__(self, addresses, token=None, ca=None, timeout=10.0):
        """`ca` is the PEM of the cluster's CA, in bytes; without it there is no TLS."""
        self.timeout = timeout
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.addresses = list(addresses)
        self.channels = []
        self.by_address = {}
        self.credentials = grpc.ssl_channel_credentials(ca) if ca else None
        for address in addresses:
            self.channels.append(self.channel(address))
        self.first = 0

    def channel(self, address):
        """The connection to a node, which is shared."""
        if address not in self.by_address:
            if self.credentials:
                channel = grpc.secure_channel(address, self.credentials)
            else:
                channel = grpc.insecure_channel(address)
            self.by_address[address] = channel
        return self.by_address[address]

    def close(self):
        for channel in self.by_address.values():
            channel.close()

    def read(self, call):
        """Makes a call that changes nothing at one node after the other."""
        for attempt in range(len(self.channels)):
            channel = self.channels[(self.first + attempt) % len(self.channels)]
            try:
                return call(channel)
            except grpc.RpcError as error:
                if error.code() not in AGAIN or attempt + 1 == len(self.channels):
                    raise
                self.first += 1

    def write(self, call):
        """Makes a change: again only where it certainly did not happen."""
        for attempt in range(len(self.channels)):
            channel = self.channels[(self.first + attempt) % len(self.channels)]
            try:
                return call(channel)
            except grpc.RpcError as error:
                trailers = error.trailing_metadata() or ()
                certain = ("keyviz-not-applied", "true") in tuple(trailers)
                unknown = error.code() in AGAIN + (grpc.StatusCode.UNKNOWN,)
                if unknown and not certain:
                    raise OutcomeUnknown(error.details()) from error
                if error.code() not in AGAIN or attempt + 1 == len(self.channels):
                    raise
                self.first += 1

    def _options(self):
        return {"metadata": self.metadata, "timeout": self.timeout}

    def put(self, key, value):
        request = kv_pb2.PutRequest(key=key, value=value)
        self.write(lambda to: kv_pb2_grpc.KvStub(to).Put(request, **self._options()))

    def get(self, key):
        """The value; None where there is no such key."""
        request = kv_pb2.GetRequest(key=key)
        answer = self.read(lambda to: kv_pb2_grpc.KvStub(to).Get(request, **self._options()))
        return answer.value if answer.HasField("value") else None

    def delete(self, key):
        request = kv_pb2.DeleteRequest(key=key)
        self.write(lambda to: kv_pb2_grpc.KvStub(to).Delete(request, **self._options()))

    def scan(self, start=b"", end=None):
        """Keys and values in key order."""
        request = kv_pb2.ScanRequest(start=start)
        if end is not None:
            request.end = end
        pages = self.read(lambda to: kv_pb2_grpc.KvStub(to).Scan(request, metadata=self.metadata))
        for page in pages:
            for row in page.rows:
                yield row.key, row.value

    def matrix(self, series="writes", node=False, **fields):
        """A heatmap, of the cluster or of the node asked; `fields` are those of GetMatrixRequest."""
        request = keyviz_pb2.GetMatrixRequest(series=SERIES[series], **fields)

        def call(to):
            stub = keyviz_pb2_grpc.KeyVizStub(to)
            stream = stub.StreamNodeMatrix if node else stub.StreamMatrix
            matrix = keyviz_pb2.Matrix()
            for part in stream(request, **self._options()):
                matrix.MergeFrom(part)
            return matrix

        return self.read(call)

    def array(self, matrix):
        """The values of a matrix as a numpy array of rows and columns."""
        import numpy

        return numpy.array([row.values for row in matrix.rows], dtype=numpy.uint64)

    def loads(self, by="route", node=False, **fields):
        """All loads with their `summary`; `fields` are those of GetLoadsRequest."""
        request = loads_pb2.GetLoadsRequest(by=GROUPINGS[by], **fields)

        def call(to):
            stub = keyviz_pb2_grpc.KeyVizStub(to)
            stream = stub.GetNodeLoads if node else stub.GetLoads
            loads = loads_pb2.Loads()
            for part in stream(request, **self._options()):
                loads.MergeFrom(part)
            if not loads.HasField("summary"):
                raise RuntimeError("the answer ended early")
            return loads

        return self.read(call)

    def top(self, rank="cost", **fields):
        """The hottest ranges; `fields` are those of TopRangesRequest."""
        request = loads_pb2.TopRangesRequest(rank=RANKS[rank], **fields)
        return self.read(
            lambda to: keyviz_pb2_grpc.KeyVizStub(to).TopRanges(request, **self._options())
        )

    def routes(self, **fields):
        """All routes of one catalog version."""
        request = routes_pb2.ListRoutesRequest(**fields)

        def call(to):
            routes = routes_pb2.ListRoutesResponse()
            for part in routes_pb2_grpc.RoutesStub(to).StreamRoutes(request, **self._options()):
                routes.MergeFrom(part)
            return routes

        return self.read(call)

    def split(self, route_id, key, request_id):
        """Splits a route. The cluster makes a change with the same `request_id` once."""
        request = routes_pb2.SplitRouteRequest(route_id=route_id, key=key, request_id=request_id)
        stub = routes_pb2_grpc.RoutesStub
        return self.read(lambda to: stub(to).SplitRoute(request, **self._options()))

    def merge(self, left_id, right_id, request_id):
        """Merges two neighbours."""
        request = routes_pb2.MergeRoutesRequest(
            left_id=left_id, right_id=right_id, request_id=request_id
        )
        stub = routes_pb2_grpc.RoutesStub
        return self.read(lambda to: stub(to).MergeRoutes(request, **self._options()))

    def move(self, route_id, to_group, request_id):
        """Begins the move of a route to another group; a watch tells when it is there."""
        request = routes_pb2.MoveRouteRequest(
            route_id=route_id, to_group=to_group, request_id=request_id
        )
        stub = routes_pb2_grpc.RoutesStub
        return self.read(lambda to: stub(to).MoveRoute(request, **self._options()))

    def transfer_leader(self, group_id, to):
        request = cluster_pb2.TransferLeaderRequest(group_id=group_id, to=to)
        stub = cluster_pb2_grpc.ClusterStub
        return self.write(lambda at: stub(at).TransferLeader(request, **self._options()))

    def status(self):
        """Members, groups and leaders."""
        request = cluster_pb2.GetStatusRequest()
        stub = cluster_pb2_grpc.ClusterStub
        return self.read(lambda to: stub(to).GetStatus(request, **self._options()))

    def capabilities(self):
        """What the node asked and all members can do."""
        request = capabilities_pb2.GetCapabilitiesRequest()
        stub = cluster_pb2_grpc.ClusterStub
        return self.read(lambda to: stub(to).GetCapabilities(request, **self._options()))

    def watch(self, leaders=True):
        """A table of the routes, and of leaders, that a thread keeps current."""
        return RouteWatch(self, leaders)

    def router(self, watch):
        """Sends each request to the node that leads its key's group, as `watch` tells."""
        return Router(self, watch)
