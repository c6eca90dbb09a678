"""The client on three nodes: KEYVIZ=target/debug/keyviz python3 -m unittest discover clients/python/tests

Skipped where grpcio and grpcio-tools are missing. No limit of gRPC is raised anywhere.
"""

import os
import time
import unittest

import nodes
from nodes import grpc

ROUTES = int(os.environ.get("KEYVIZ_TEST_ROUTES", "3000"))
# Columns of which the hour that is asked for by default has exactly as many as a matrix may have.
STEP_MS = 1758
MAX_ROWS, MAX_COLUMNS = 1024, 2048


@unittest.skipIf(nodes.missing(), nodes.missing())
class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        splits = [f"k{number:06}" for number in range(1, ROUTES - 1)]
        cls.nodes = nodes.Nodes(splits, step=f"{STEP_MS}ms")
        cls.addClassCleanup(cls.nodes.stop)
        cls.client = cls.nodes.client()

    def split_last(self):
        """Makes the last route of as many as the test is for; made once, however often asked."""
        self.client.split(1, b"a", "the-last-split")

    def whole(self, ask, summary=lambda answer: answer):
        """An answer in which nobody is missing: with many routes a busy node may need a while."""
        deadline = time.monotonic() + 120
        while True:
            answer = ask()
            if summary(answer).responded == summary(answer).expected:
                return answer
            self.assertLess(time.monotonic(), deadline, summary(answer).nodes)

    def test_keys(self):
        self.client.put(b"py/a", b"1")
        self.client.put(b"py/b", b"2")
        self.assertEqual(self.client.get(b"py/a"), b"1")
        self.assertIsNone(self.client.get(b"py/none"))
        self.assertEqual(list(self.client.scan(b"py/", b"py0")), [(b"py/a", b"1"), (b"py/b", b"2")])
        self.client.delete(b"py/a")
        self.assertIsNone(self.client.get(b"py/a"))

    def test_default_limits_read_all_routes_the_largest_matrix_and_loads_that_equal_it(self):
        from keyviz.v1 import keyviz_pb2, keyviz_pb2_grpc

        self.split_last()
        began = time.monotonic()
        written = range(0, ROUTES, max(1, ROUTES // 200))
        for number in written:
            self.client.put(b"k%06d" % number, b"v" * 100)
        deadline = time.monotonic() + 60
        while True:
            whole = self.client.loads("group").summary
            if whole.total.writes >= len(written):
                break
            self.assertLess(time.monotonic(), deadline, whole)
            time.sleep(0.5)

        routes = self.client.routes()
        self.assertEqual(len({route.route_id for route in routes.routes}), len(routes.routes))
        self.assertGreaterEqual(len(routes.routes), ROUTES)

        # The hour before the end, which is that of a column.
        window = {"to_ms": whole.to_ms}
        starts = sorted(bytes(route.start) for route in routes.routes)[1:]
        boundaries = starts[:: max(1, len(starts) // (MAX_ROWS - 1))][: MAX_ROWS - 1]
        # Long ones, as keys may be.
        boundaries = [start + b"!" * 700 for start in boundaries]
        fields = {"boundaries": boundaries, "max_columns": MAX_COLUMNS, "by_node": True, **window}
        matrix = self.whole(lambda: self.client.matrix("writes", **fields))
        self.assertEqual((len(matrix.rows), len(matrix.columns)), (MAX_ROWS, MAX_COLUMNS))
        self.assertTrue(all(len(row.values) == MAX_COLUMNS for row in matrix.rows))
        parts = sum(sum(row.values) for row in matrix.rows)
        parts += sum(block.value for block in matrix.blocks if not block.straddling)
        self.assertEqual(parts, matrix.total)
        self.assertGreaterEqual(matrix.total, len(written))
        # In one message it is above the limit.
        self.assertGreater(matrix.ByteSize(), 4 << 20)
        stub = keyviz_pb2_grpc.KeyVizStub(self.client.channels[0])
        with self.assertRaises(grpc.RpcError) as refused:
            stub.GetMatrix(keyviz_pb2.GetMatrixRequest(series=2, **fields), timeout=60)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

        for by in ["route", "group", "leader", "node", "prefix"]:
            loads = self.whole(
                lambda: self.client.loads(by, **window), lambda answer: answer.summary
            )
            parts = list(loads.loads) + list(loads.shared)
            total = loads.summary.total.writes
            self.assertEqual(sum(part.counts.writes for part in parts), total, by)
            self.assertEqual(total, matrix.total, by)
        top = self.client.top("writes", limit=5)
        self.assertEqual(len(top.ranges), 5)
        print(
            f"{len(routes.routes)} routes of {routes.ByteSize()} bytes, a matrix of "
            f"{MAX_ROWS} x {MAX_COLUMNS} of {matrix.ByteSize()} bytes, and loads by five that equal "
            f"it ({matrix.total} writes), in {time.monotonic() - began:.0f} s"
        )

    def test_a_page_token_that_is_made_up_or_old_is_refused(self):
        from keyviz.v1 import routes_pb2, routes_pb2_grpc

        stub = routes_pb2_grpc.RoutesStub(self.client.channels[0])
        page = stub.ListRoutes(routes_pb2.ListRoutesRequest(page_size=7), timeout=10)
        self.assertEqual(len(page.routes), 7)
        again = routes_pb2.ListRoutesRequest(page_size=7, page_token=page.next_page_token)
        following = stub.ListRoutes(again, timeout=10)
        self.assertEqual(following.routes[0].start, page.routes[-1].end)
        with self.assertRaises(grpc.RpcError) as refused:
            stub.ListRoutes(routes_pb2.ListRoutesRequest(page_token=b"made up"), timeout=10)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.split_last()
        with self.assertRaises(grpc.RpcError) as refused:
            stub.ListRoutes(again, timeout=10)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.ABORTED)

    def test_a_watch_is_reset_by_a_version_of_another_cluster_and_needs_its_name(self):
        from keyviz.v1 import routes_pb2, routes_pb2_grpc

        with self.client.watch() as watch:
            watch.table.check()
            version, cluster_id = watch.table.version, watch.table.cluster_id
            self.assertEqual(watch.resets, 0)
        stub = routes_pb2_grpc.RoutesStub(self.client.channels[0])
        foreign = routes_pb2.WatchRoutesRequest(after_version=version, cluster_id="another")
        first = next(stub.WatchRoutes(foreign, timeout=30))
        self.assertTrue(first.snapshot.reset)
        self.assertEqual(first.cluster_id, cluster_id)
        nameless = routes_pb2.WatchRoutesRequest(after_version=version, leaders=True)
        with self.assertRaises(grpc.RpcError) as refused:
            next(stub.WatchRoutes(nameless, timeout=10))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_capabilities_name_what_all_members_can(self):
        capabilities = self.client.capabilities()
        self.assertIn("get_loads", capabilities.cluster)
        self.assertEqual(len(capabilities.members), 3)


if __name__ == "__main__":
    unittest.main()
