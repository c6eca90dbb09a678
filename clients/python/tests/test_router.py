"""A router beside changes of routes, groups and leaders, and a restore.

This is the conformance test of WatchRoutes with leaders: a router in another language that runs the
same course and finds the same at its end follows the watch right.
"""

import os
import random
import threading
import time
import unittest

import nodes

CHANGES = int(os.environ.get("KEYVIZ_TEST_CHANGES", "200"))
GROUPS = 3
KEYS = [b"k%02d" % number for number in range(100)]


class Traffic(threading.Thread):
    """Writes keys one after the other through a router, and remembers what was acknowledged."""

    def __init__(self, router):
        super().__init__(daemon=True)
        self.router = router
        self.chance = random.Random(11)
        self.values = {}
        self.unknown = {}
        self.acknowledged = 0
        self.failed = 0
        self.paused = threading.Event()
        self.idle = threading.Event()
        self.ended = False

    def run(self):
        from keyviz_client import OutcomeUnknown

        while not self.ended:
            if self.paused.is_set():
                self.idle.set()
                time.sleep(0.01)
                continue
            self.idle.clear()
            key, value = self.key(), b"%d" % self.router.sent
            try:
                self.router.put(key, value)
                self.values[key] = value
                self.unknown.pop(key, None)
                self.acknowledged += 1
            except OutcomeUnknown:
                self.unknown.setdefault(key, set()).add(value)
            except Exception:
                self.failed += 1
            time.sleep(0.002)

    def key(self):
        """A key of any group, all groups alike."""
        groups = {}
        for key in KEYS:
            groups.setdefault(self.router.watch.led_by(key)[0], []).append(key)
        return self.chance.choice(self.chance.choice(list(groups.values())))

    def pause(self):
        self.paused.set()
        self.idle.wait(90)

    def resume(self):
        self.idle.clear()
        self.paused.clear()

    def lost(self):
        """Keys whose value is not the last one that was acknowledged, nor an unknown later one."""
        lost = []
        for key, value in self.values.items():
            found = self.router.get(key)
            if found != value and found not in self.unknown.get(key, ()):
                lost.append((key, value, found))
        return lost


@unittest.skipIf(nodes.missing(), nodes.missing())
class RouterTest(unittest.TestCase):
    def setUp(self):
        self.nodes = nodes.Nodes([f"k{number:02}" for number in range(10, 100, 10)], GROUPS)
        self.addCleanup(self.nodes.stop)
        self.client = self.nodes.client(timeout=30)
        self.addCleanup(self.client.close)
        self.chance = random.Random(7)
        self.number = 0

    def change(self, watch, kind):
        """Makes one change and waits until the watch shows it. False: there is none to make now."""
        self.number += 1
        name = f"change-{self.number}"
        with watch.changed:
            routes = [watch.table.routes[start] for start in watch.table.starts]
            leaders = {group: one.node_id for group, one in watch.table.leaders.items()}
        at = self.chance.randrange(len(routes))
        route = routes[at]
        if kind == "split":
            # Below all earlier ones, so within the route.
            key = bytes(route.start) + b"!%05d" % (99_999 - self.number)
            version = self.client.split(route.route_id, key, name).catalog_version
            return watch.wait_for(lambda table: table.version >= version)
        if kind == "merge":
            pairs = [
                (left, right)
                for left, right in zip(routes, routes[1:])
                if left.group_id == right.group_id
            ]
            if not pairs:
                return False
            left, right = self.chance.choice(pairs)
            version = self.client.merge(left.route_id, right.route_id, name).catalog_version
            return watch.wait_for(lambda table: table.version >= version)
        if kind == "move":
            group = self.chance.choice([one for one in range(1, GROUPS + 1) if one != route.group_id])
            self.client.move(route.route_id, group, name)
            start = bytes(route.start)
            return watch.wait_for(lambda table: table.routes[start].group_id == group, 30)
        group = self.chance.randrange(1, GROUPS + 1)
        to = self.chance.choice([one for one in (1, 2, 3) if one != leaders.get(group)])
        self.client.transfer_leader(group, to)
        return watch.wait_for(lambda table: table.leaders[group].node_id == to)

    def course(self, watch, router, changes):
        """So many changes, of each kind its part. After each, each group's leader gets a request,
        so that no request comes after two changes of one group."""
        left = {"split": changes * 7 // 20, "merge": changes * 6 // 20, "move": changes // 10}
        left["leader"] = changes - sum(left.values())
        while any(left.values()):
            kind = self.chance.choice([kind for kind, number in left.items() if number])
            try:
                before = dict(router.led)
                left[kind] -= bool(self.change(watch, kind))
                self.used(watch, router, before)
            except Exception as error:
                # Such as a leader that is not ready for it: it is made again.
                print(f"{kind}: {error!r:.200}")
                time.sleep(0.2)
            watch.table.check()

    def used(self, watch, router, before):
        """Waits until the leader of each group that has keys was sent a request since."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            groups = {watch.led_by(key)[0] for key in KEYS}
            if all(router.led.get(group, 0) > before.get(group, 0) for group in groups):
                return
            time.sleep(0.005)
        raise TimeoutError("the router does not find the leaders")

    def test_a_router_never_sends_twice_in_a_row_to_a_wrong_leader(self):
        began = time.monotonic()
        with self.client.watch() as watch:
            watch.table.check()
            router = self.client.router(watch)
            traffic = Traffic(router)
            traffic.start()
            self.addCleanup(setattr, traffic, "ended", True)
            self.course(watch, router, CHANGES)
            self.assertEqual(watch.resets, 0)
            self.tell("changes", CHANGES, traffic, began)
            self.assertLess(router.most_wrong_in_a_row, 2)

            traffic.pause()
            self.assertEqual(traffic.lost(), [])
            cluster_id = watch.table.cluster_id
            self.nodes.restore()
            # The watch is told of another cluster and begins anew by itself.
            renewed = watch.wait_for(lambda table: table.cluster_id not in ("", cluster_id), 90)
            self.assertTrue(renewed, watch.error)
            self.assertGreaterEqual(watch.resets, 1)
            self.assertEqual(traffic.lost(), [])
            traffic.resume()
            self.course(watch, router, max(20, CHANGES // 10))
            traffic.pause()
            self.assertEqual(traffic.lost(), [])
            self.tell("changes and a restore", self.number, traffic, began)
            self.assertLess(router.most_wrong_in_a_row, 2)
            self.assertGreater(traffic.acknowledged, CHANGES)

    def tell(self, what, changes, traffic, began):
        router = traffic.router
        print(
            f"{changes} {what} in {time.monotonic() - began:.0f} s: {router.sent} requests, "
            f"{router.wrong} at a wrong leader, at most {router.most_wrong_in_a_row} of a group in "
            f"a row; {len(traffic.unknown)} of unknown outcome, {traffic.failed} failed"
        )


if __name__ == "__main__":
    unittest.main()
