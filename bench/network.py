"""Where the two sides of a copy are."""
import json
import os
import subprocess

from machine import find, run

# Sender and receiver, when they have networks of their own.
SIDES = (("wherry-bench-a", "10.111.0.1"), ("wherry-bench-b", "10.111.0.2"))


class Network:
    """Where the two sides are: one namespace with a loopback, two with a link between them, or this machine's own loopback."""

    def __init__(self, rate=None):
        self.rate = rate
        self.is_own = os.geteuid() == 0
        self.sides = SIDES if rate else (SIDES[0],) * 2
        self.address = SIDES[1][1] if rate else "127.0.0.1"

    def __enter__(self):
        if not self.is_own:
            return self
        self.remove()
        try:
            for name, _ in dict(self.sides).items():
                run("ip", "netns", "add", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
            if self.rate:
                (a, a_address), (b, b_address) = SIDES
                run("ip", "-n", a, "link", "add", "wire", "mtu", 1500, "type", "veth", "peer", "name", "wire", "mtu", 1500, "netns", b)
                for name, address in SIDES:
                    run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "wire")
                    run("ip", "-n", name, "link", "set", "wire", "up")
                    run("ip", "netns", "exec", name, find("tc"), "qdisc", "add", "dev", "wire", "root", "tbf", "rate", self.rate,
                        "burst", "128kb", "latency", "20ms")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        if self.is_own:
            self.remove()

    def remove(self):
        for name, _ in SIDES:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def on(self, side):
        """What a command of a side begins with."""
        return ["ip", "netns", "exec", self.sides[side][0]] if self.is_own else []

    def sent(self):
        """Bytes that each side has sent, headers and all: together on a loopback, unknown on one that others use too."""
        if not self.is_own:
            return None
        names = list(dict(self.sides))
        if self.rate:
            # What the shaper has let through. The device counts the header of a large segment once, the shaper that of each frame in it.
            shapers = [json.loads(run(find("tc"), "-s", "-j", "-n", name, "qdisc", "show", "dev", "wire"))[0] for name in names]
            return [shaper["bytes"] for shaper in shapers]
        counters = [json.loads(run("ip", "-j", "-s", "-n", name, "link", "show", "dev", "lo"))[0] for name in names]
        return [counter["stats64"]["tx"]["bytes"] for counter in counters]

    def since(self, before):
        """What has been sent since: by both sides, and by the sender alone where that can be told apart."""
        if before is None:
            return {"wire": None, "sent": None}
        sides = [now - then for now, then in zip(self.sent(), before)]
        return {"wire": sum(sides), "sent": sides[0] if self.rate else None}
