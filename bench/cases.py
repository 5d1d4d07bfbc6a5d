"""What is measured: which disk, from where to where, by which tools."""
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile

from disks import changed, copy_sparse, disk, extents, identical, sized
from machine import CACHE, GIB, MIB, build, fail, now, say, version
from network import Network
from tools import ALL, SHAPED, Copy


@dataclasses.dataclass(frozen=True)
class Case:
    title: str
    disk: str
    tools: list
    rate: str | None = None
    # Else on the disk's file system.
    in_memory: bool = True
    # Past the page cache where a tool can.
    is_direct: bool = False
    # What the target is before: "fresh" (nothing), "there" (full of other bytes), or "old" (a copy from before 1 % of the source changed).
    target: str = "fresh"


CASES = {
    "realistic": Case("Realistic Linux disk, memory to fresh memory", "realistic", ALL),
    "random": Case("Noise, memory to preallocated memory", "random", [*ALL, "wherry checksum"], target="there"),
    "zeros": Case("8 TiB of nothing", "zeros", ["wherry", "nbdcopy", "qemu-img"], in_memory=False),
    "disk": Case("Realistic Linux disk, disk to disk past the cache", "realistic",
                 ["wherry", "nbdcopy", "nbdcopy TLS", "qemu-img", "qemu-img TLS", "rsync ssh", "dd zstd ssh", "local copy"],
                 in_memory=False, is_direct=True),
    "rescan": Case("Realistic Linux disk of which 1 % changed, memory to memory", "realistic", ["wherry", "rsync", "rsync -z", "rsync ssh"], target="old"),
    "link-1gbit": Case("Realistic Linux disk over 1 Gbit/s", "realistic", SHAPED, rate="1gbit"),
    "link-1gbit-noise": Case("Noise over 1 Gbit/s", "random", ["wherry quic", "wherry tcp"], rate="1gbit"),
    "link-100mbit": Case("Realistic Linux disk over 100 Mbit/s", "realistic", ["wherry", "nbdcopy", "rsync -z"], rate="100mbit"),
    "link-100mbit-noise": Case("Noise over 100 Mbit/s", "random-small", ["wherry quic", "wherry tcp"], rate="100mbit"),
}


def fill(path, length):
    with open(path, "wb") as file:
        for _ in range(length // (8 * MIB)):
            file.write(b"\xaa" * 8 * MIB)


def prepare(case, tool, copy, old, data):
    """Brings the target to what it is before a run."""
    copy.target.unlink(missing_ok=True)
    chunks = copy.target.with_name(copy.target.name + ".chunks")
    chunks.unlink(missing_ok=True)
    if case.target == "there":
        fill(copy.target, copy.source.stat().st_size)
    elif case.target == "fresh" and case.in_memory:
        # A hypervisor takes pages back that have been free for seconds, and getting them again costs more than the copy: whoever came after a
        # slow tool would pay for it. So everybody finds as many that have just become free.
        fill(copy.target, data)
        copy.target.unlink()
    elif case.target == "old" and tool.startswith("wherry"):
        # Its own copy, so that the receiver has the chunk map that every instance has.
        subprocess.run([copy.program, "bench", "transfer", "--from", old, "--to", copy.target, "--keep", "--json"], check=True, stdout=copy.log, stderr=copy.log)
    elif case.target == "old":
        sized(copy.target, old.stat().st_size)
        copy_sparse(old, copy.target)


def check_room(is_quick, cases):
    """Disks that belong into memory must lie there, and the others on a disk: anything else is another measurement."""
    needed = 2 * GIB if is_quick else 10 * GIB
    available = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable")) * 1024
    if available < needed and any(case.in_memory for case in cases):
        fail(f"{needed // GIB} GiB of free memory are needed and {available / GIB:.1f} are there: end other programs, or choose cases on the disk (--case disk)")
    CACHE.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(CACHE).free
    if room < needed:
        fail(f"{needed // GIB} GiB of free disk are needed in {CACHE} and {room / GIB:.1f} are there")
    if version("stat", "-f", "-c", "%T", str(CACHE)) == "tmpfs" and any(case.is_direct for case in cases):
        fail(f"{CACHE} lies in memory: the case disk needs a disk's file system")


def run_case(name, arguments, keys, log):
    case = CASES[name]
    tools = arguments.tool or case.tools
    if case.rate and os.geteuid() != 0:
        say(f"{name}: skipped, only root can shape a link")
        return None
    kept = disk(case.disk, arguments.quick)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wherry-bench-", dir="/dev/shm" if case.in_memory else CACHE))
    results = {tool: {"runs": []} for tool in tools}
    about = {"when": now(), "wherry": build(arguments.program), "load": f"{os.getloadavg()[0]:.1f}"}
    try:
        source = kept
        if case.in_memory:
            source = folder / "source.raw"
            sized(source, kept.stat().st_size)
            copy_sparse(kept, source)
        old = source
        if case.target == "old":
            source = changed(source, folder)
        with open(source, "rb") as file:
            data = sum(end - start for start, end in extents(file.fileno()))
        with Network(case.rate) as network:
            for number in range(1 if arguments.quick else arguments.rounds):
                # Each round begins with another tool, so that none always comes first.
                for tool in tools[number % len(tools):] + tools[:number % len(tools)]:
                    print(f"\n=== {name}, {tool}", file=log, flush=True)
                    one = Copy(case, network, keys, arguments.program, source, folder / "target.raw", log)
                    try:
                        prepare(case, tool, one, old, data)
                        measured = one.measure(tool)
                        if not identical(source, one.target):
                            raise RuntimeError("the target differs from the source")
                        results[tool]["runs"].append(measured)
                        say(f"{name}: {tool}: {measured['wall']:.2f} s")
                    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
                        results[tool]["failed"] = str(error)
                        say(f"{name}: {tool}: {error}; see {log.name}")
        return {"case": name, "title": case.title, "logical": source.stat().st_size, "data": data, "rate": case.rate, "tools": results,
                "in_memory": case.in_memory, **about}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
