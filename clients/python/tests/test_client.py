"""Runs a node and uses it: KEYVIZ=target/debug/keyviz python3 -m unittest discover clients/python/tests

Skipped where grpcio and grpcio-tools are missing. The watch is a conformance test of WatchRoutes:
a client in another language that passes the same course follows the routes right.
"""

import os
import random
import time
import unittest

import nodes
from nodes import grpc

ROUTES = int(os.environ.get("KEYVIZ_TEST_ROUTES", "3000"))
CHANGES = int(os.environ.get("KEYVIZ_TEST_CHANGES", "60"))


@unittest.skipIf(nodes.missing(), nodes.missing())
class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nodes = nodes.Nodes([f"k{number:06}" for number in range(1, ROUTES)])
        cls.addClassCleanup(cls.nodes.stop)
        cls.client = cls.nodes.client()

    def test_keys(self):
        self.client.put(b"py/a", b"1")
        self.client.put(b"py/b", b"2")
        self.assertEqual(self.client.get(b"py/a"), b"1")
        self.assertIsNone(self.client.get(b"py/none"))
        self.assertEqual(list(self.client.scan(b"py/", b"py0")), [(b"py/a", b"1"), (b"py/b", b"2")])
        self.client.delete(b"py/a")
        self.assertIsNone(self.client.get(b"py/a"))

    def test_default_limits_read_all_routes_and_loads_that_equal_the_matrix(self):
        for number in range(0, ROUTES, max(1, ROUTES // 20)):
            self.client.put(b"k%06d" % number, b"v" * 100)
        time.sleep(2.5)
        routes = self.client.routes()
        self.assertEqual(len({route.route_id for route in routes.routes}), len(routes.routes))
        self.assertGreaterEqual(len(routes.routes), ROUTES)
        whole = self.client.loads("group").summary
        window = {"from_ms": whole.from_ms, "to_ms": whole.to_ms}
        matrix = self.client.matrix("writes", max_rows=1024, max_columns=2048, **window)
        for by in ["route", "group", "leader", "node", "prefix"]:
            loads = self.client.loads(by, **window)
            parts = list(loads.loads) + list(loads.shared)
            total = loads.summary.total.writes
            self.assertEqual(sum(part.counts.writes for part in parts), total, by)
            self.assertEqual(total, matrix.total, by)
        self.assertGreaterEqual(matrix.total, 20)
        top = self.client.top("writes", limit=5)
        self.assertEqual(len(top.ranges), 5)

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
        self.client.split(page.routes[0].route_id, b"a", "token-split")
        with self.assertRaises(grpc.RpcError) as refused:
            stub.ListRoutes(again, timeout=10)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.ABORTED)

    def test_a_watch_follows_splits_merges_and_leaders_and_refuses_another_cluster(self):
        from keyviz.v1 import routes_pb2, routes_pb2_grpc

        chance = random.Random(7)
        with self.client.watch() as watch:
            watch.table.check()
            wrong_in_a_row = most_in_a_row = 0
            for change in range(CHANGES):
                table = watch.table
                kind = chance.choice(["split", "split", "merge", "leader"])
                starts = list(table.starts)
                at = chance.randrange(len(starts) - 1)
                left, right = table.routes[starts[at]], table.routes[starts[at + 1]]
                name = f"watch-{change}"
                if kind == "split":
                    key = bytes(left.start) + b"x%03d" % change
                    version = self.client.split(left.route_id, key, name).catalog_version
                elif kind == "merge" and left.group_id == right.group_id:
                    merged = self.client.merge(left.route_id, right.route_id, name)
                    version = merged.catalog_version
                else:
                    version = table.version
                    try:
                        self.client.transfer_leader(1 + change % 3, 1 + chance.randrange(3))
                    except (grpc.RpcError, Exception):
                        pass
                reached = watch.wait_for(lambda table: table.version >= version)
                self.assertTrue(reached, f"{kind} at version {version}: {watch.error}")
                watch.table.check()
                key = b"k%06d" % chance.randrange(ROUTES)
                wrong_in_a_row = 0 if self.led(watch, key) else wrong_in_a_row + 1
                most_in_a_row = max(most_in_a_row, wrong_in_a_row)
            print(f"{CHANGES} changes, at most {most_in_a_row} requests in a row at a wrong leader")
            self.assertLess(most_in_a_row, 2)
            self.assertEqual(watch.resets, 0)
            version, cluster_id = watch.table.version, watch.table.cluster_id
        stub = routes_pb2_grpc.RoutesStub(self.client.channels[0])
        foreign = routes_pb2.WatchRoutesRequest(after_version=version, cluster_id="another")
        first = next(stub.WatchRoutes(foreign, timeout=10))
        self.assertTrue(first.snapshot.reset)
        self.assertEqual(first.cluster_id, cluster_id)
        nameless = routes_pb2.WatchRoutesRequest(after_version=version, leaders=True)
        with self.assertRaises(grpc.RpcError) as refused:
            next(stub.WatchRoutes(nameless, timeout=10))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def led(self, watch, key):
        """Whether the node that the watch names led the key's group, asked as a router does."""
        from keyviz.v1 import kv_pb2, kv_pb2_grpc

        watch.wait_for(lambda table: table.leader_of(key), 10)
        stub = kv_pb2_grpc.KvStub(self.client.channel(watch.leader_of(key)))
        put = kv_pb2.PutRequest(key=key, value=b"v")
        _, call = stub.Put.with_call(put, timeout=10)
        # The answer names the leader only where another node led.
        hints = [value for name, value in call.initial_metadata() if name == "keyviz-leader"]
        return not hints

    def test_capabilities_name_what_all_members_can(self):
        capabilities = self.client.capabilities()
        self.assertIn("get_loads", capabilities.cluster)
        self.assertEqual(len(capabilities.members), 3)


if __name__ == "__main__":
    unittest.main()
