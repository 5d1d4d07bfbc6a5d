"""The machine: what it has, what is missing on it, and what it is called in a report."""
import datetime
import os
import pathlib
import platform
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".wherry" / "bench"
MIB, GIB = 1 << 20, 1 << 30
PACKAGES = {
    "qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "nbdcopy": "libnbd-bin", "rsync": "rsync", "ssh": "openssh-client",
    "sshd": "openssh-server", "zstd": "zstd", "openssl": "openssl", "mkfs.ext4": "e2fsprogs", "sgdisk": "gdisk", "ip": "iproute2", "tc": "iproute2",
}


def fail(message):
    sys.exit(f"bench: {message}")


def say(message):
    print(f"bench: {message}", flush=True)


def run(*command, **keywords):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **keywords).stdout


def find(program):
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def install():
    missing = sorted({package for program, package in PACKAGES.items() if not find(program)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        fail(f"missing: {' '.join(missing)}. Install these packages, then try again")
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A server that a package brings must not start by itself: nothing here needs it to run beside the bench.
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    is_ours = not policy.exists()
    if is_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        try:
            run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)
        except subprocess.CalledProcessError:
            run("apt-get", "update", "-qq", env=environment)
            run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)
    except subprocess.CalledProcessError as error:
        fail(f"apt-get could not install {' '.join(missing)}:\n{error.stderr}")
    finally:
        if is_ours:
            policy.unlink()


def version(*command):
    try:
        text = subprocess.run(command, capture_output=True, text=True).stdout.strip() or "?"
        return text.splitlines()[0]
    except OSError:
        return "?"


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def build(program):
    return f"{version(str(program), '--version')}, {version('git', '-C', str(ROOT), 'describe', '--always', '--dirty')}"


def machine():
    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal")) / MIB
    return {
        "processor": f"{os.cpu_count()} × {processor}", "memory": f"{memory:.0f} GiB", "kernel": platform.release(),
        "file system": version("stat", "-f", "-c", "%T", str(CACHE)),
        "qemu": version("qemu-img", "--version"), "nbdcopy": version("nbdcopy", "--version"), "rsync": version("rsync", "--version"),
        "ssh": subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.strip(), "zstd": version("zstd", "--version"),
    }
