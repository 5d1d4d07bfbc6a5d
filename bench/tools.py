"""The tools that are compared: how each is started, and what a copy with it took."""
import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

from machine import find, run
from network import SIDES

# Seconds that one copy may take before it counts as "does not finish".
PATIENCE = 900


def peak_memory(pid):
    """Of the process alone. What wait4 says of it begins with the size of this script, which it was forked from."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


class Side:
    """A process of one side and all of its children."""

    def __init__(self, command, log):
        self.memory = 0
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def has_ended(self):
        """Leaves it to be waited for: its usage comes with that."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self, patience, wanted=True):
        """Waits for its end, or ends it; answers with exit code, processor seconds and the memory of the process itself."""
        deadline = time.monotonic() + patience
        asked = False
        while True:
            self.memory = max(self.memory, peak_memory(self.process.pid))
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline or not (wanted or asked):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL if asked and time.monotonic() > deadline else signal.SIGTERM)
                if not asked:
                    deadline = time.monotonic() + 5
                asked = True
            time.sleep(0.005)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode, usage.ru_utime + usage.ru_stime, self.memory


def wait_for_port(network, side, address, port, process):
    deadline = time.monotonic() + 10
    probe = f"import socket; socket.create_connection(({address!r}, {port}), 1).close()"
    while subprocess.run([*network.on(side), sys.executable, "-c", probe], capture_output=True).returncode:
        if process.has_ended() or time.monotonic() > deadline:
            raise RuntimeError("its server does not listen")
        time.sleep(0.02)


class Keys:
    """Certificates for NBD, and keys for SSH."""

    def __init__(self, folder):
        self.tls, self.ssh = folder / "tls", folder / "ssh"
        self.tls.mkdir()
        self.ssh.mkdir()
        ca = ["-CA", self.tls / "ca-cert.pem", "-CAkey", self.tls / "ca-key.pem"]
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        run(*new, "-subj", "/CN=bench", "-keyout", self.tls / "ca-key.pem", "-out", self.tls / "ca-cert.pem")
        names = ",".join(["DNS:localhost", "IP:127.0.0.1", *(f"IP:{address}" for _, address in SIDES)])
        for side in ("server", "client"):
            key, certificate, request = (self.tls / f"{side}-{part}.pem" for part in ("key", "cert", "request"))
            run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={side}",
                "-keyout", key, "-out", request)
            extensions = self.tls / "extensions"
            extensions.write_text(f"subjectAltName={names}\n")
            run("openssl", "x509", "-req", "-in", request, *ca, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate)
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.ssh / name)
        shutil.copy(self.ssh / "user.pub", self.ssh / "authorized")
        (self.ssh / "config").write_text(
            f"HostKey {self.ssh}/host\nAuthorizedKeysFile {self.ssh}/authorized\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nMaxStartups 100\n")

    def ssh_command(self, port):
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "Compression=no"]
        return ["ssh", "-F", "none", "-i", self.ssh / "user", "-p", port, *(word for option in options for word in ("-o", option))]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Copy:
    """One copy: what to copy, where, and how both sides are reached."""

    def __init__(self, case, network, keys, program, source, target, log):
        self.case, self.network, self.keys, self.program = case, network, keys, program
        self.source, self.target, self.log, self.port = source, target, log, free_port()
        self.direct = case.is_direct
        self.in_place = case.target != "fresh"

    # Each answers with the commands of sender and receiver; which one serves, and which one runs to its end.

    def nbd_pull(self, client, tls):
        serve = ["qemu-nbd", "-r", "-f", "raw", "-t", "-e", 8, "-b", self.network_address(0), "-p", self.port, *(["--cache=none"] if self.direct else [])]
        if tls:
            serve += ["--object", f"tls-creds-x509,id=tls,dir={self.keys.tls},endpoint=server,verify-peer=yes", "--tls-creds", "tls"]
        return {"serves": 0, "commands": [[*serve, self.source], client], "peer": 0}

    def network_address(self, side):
        return SIDES[side][1] if self.network.rate else "127.0.0.1"

    def nbdcopy(self, tls=False):
        scheme, query = ("nbds", f"?tls-certificates={self.keys.tls}") if tls else ("nbd", "")
        if self.in_place:
            # A local file would be cut off first: only a server writes into one that is there.
            serve = ["qemu-nbd", "-f", "raw", "-t", "-e", 8, "-b", self.network_address(1), "-p", self.port]
            if tls:
                serve += ["--object", f"tls-creds-x509,id=tls,dir={self.keys.tls},endpoint=server,verify-peer=yes", "--tls-creds", "tls"]
            client = ["nbdcopy", "--flush", self.source, f"{scheme}://{self.network_address(1)}:{self.port}/{query}"]
            return {"serves": 1, "commands": [client, [*serve, self.target]], "peer": 1}
        client = ["nbdcopy", "--flush", f"{scheme}://{self.network_address(0)}:{self.port}/{query}", self.target]
        return self.nbd_pull(client, tls)

    def qemu_img(self, tls=False):
        options = f"driver=nbd,host={self.network_address(0)},port={self.port}"
        client = ["qemu-img", "convert", "-O", "raw", "-m", 8, *(["-n", "-W"] if self.in_place else []), *(["-t", "none"] if self.direct else [])]
        if tls:
            client += ["--object", f"tls-creds-x509,id=tls,dir={self.keys.tls},endpoint=client"]
            options += ",tls-creds=tls"
        return self.nbd_pull([*client, "--image-opts", f"driver=raw,file.{options.replace(',', ',file.')}", self.target], tls)

    def local_copy(self):
        """What the disks themselves take: one process, no network."""
        client = ["qemu-img", "convert", "-f", "raw", "-O", "raw", "-m", 8, *(["-n", "-W"] if self.in_place else [])]
        return {"alone": [*client, *(["-T", "none", "-t", "none"] if self.direct else []), self.source, self.target]}

    def rsync(self, *options):
        module = self.keys.ssh / "rsyncd.conf"
        module.write_text(f"use chroot = no\nuid = {os.geteuid()}\ngid = {os.getegid()}\n[target]\npath = {self.target.parent}\nread only = no\n")
        serve = ["rsync", "--daemon", "--no-detach", f"--config={module}", f"--port={self.port}", f"--address={self.network_address(1)}"]
        client = ["rsync", *self.rsync_options(options), self.source, f"rsync://{self.network_address(1)}:{self.port}/target/{self.target.name}"]
        return {"serves": 1, "commands": [client, serve], "peer": 1}

    def rsync_options(self, options):
        return [*([] if self.case.target == "old" else ["--whole-file"]), "--inplace" if self.in_place else "--sparse", *options]

    def sshd(self, client):
        if os.geteuid() == 0:
            # Its package makes this folder when it starts the service.
            pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        serve = [find("sshd"), "-D", "-e", "-f", self.keys.ssh / "config", "-p", self.port, "-o", f"ListenAddress={self.network_address(1)}"]
        return {"serves": 1, "commands": [client, serve], "peer": 1}

    def rsync_ssh(self, *options):
        shell = " ".join(str(word) for word in self.keys.ssh_command(self.port))
        return self.sshd(["rsync", *self.rsync_options(options), "-e", shell, self.source, f"{self.network_address(1)}:{self.target}"])

    def zstd_ssh(self):
        far = f"zstd -dc | dd of={shlex.quote(str(self.target))} bs=1M iflag=fullblock conv={'notrunc' if self.in_place else 'sparse'}"
        far += f" && truncate -s {self.source.stat().st_size} {shlex.quote(str(self.target))}"
        shell = shlex.join(str(word) for word in [*self.keys.ssh_command(self.port), self.network_address(1), far])
        return self.sshd(["sh", "-c", f"dd if={shlex.quote(str(self.source))} bs=1M | zstd -1 -c | {shell}"])

    def wherry(self, *options):
        command = [self.program, "bench", "transfer", "--from", self.source, "--to", self.target, "--json", *options]
        if self.case.target == "old":
            command.append("--keep")
        if self.network.rate:
            command += ["--address", self.network.address, "--via", shlex.join(self.network.on(1))]
        return command

    def measure(self, tool):
        """Wall, processor of each side, wire and memory; or why there are none."""
        patience = PATIENCE
        method, arguments = TOOLS[tool]
        plan = getattr(self, method)(*arguments)
        os.sync()
        if self.direct and os.geteuid() == 0:
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        if isinstance(plan, list):
            return self.measure_wherry(plan, patience)
        if "alone" in plan:
            return self.measure_alone(plan["alone"], patience)
        server_side, peer = plan["serves"], plan["peer"]
        server = Side([*self.network.on(server_side), *plan["commands"][server_side]], self.log)
        try:
            wait_for_port(self.network, 1 - server_side, self.network_address(peer), self.port, server)
            before, began = self.network.sent(), time.monotonic()
            client = Side([*self.network.on(1 - server_side), *plan["commands"][1 - server_side]], self.log)
            code, client_cpu, client_memory = client.end(patience)
            self.put_down()
            wall = time.monotonic() - began
            crossed = self.network.since(before)
        finally:
            _, server_cpu, server_memory = server.end(5, wanted=False)
        if code != 0:
            raise RuntimeError(f"ended with {code} after {wall:.0f} s")
        cpu = [client_cpu, server_cpu] if server_side == 1 else [server_cpu, client_cpu]
        memory = [client_memory, server_memory] if server_side == 1 else [server_memory, client_memory]
        return {"wall": wall, "cpu": cpu, "memory": memory, **crossed}

    def put_down(self):
        """On a disk a copy counts when it is there to stay."""
        if self.direct:
            with open(self.target, "rb") as written:
                os.fsync(written.fileno())

    def measure_alone(self, command, patience):
        began = time.monotonic()
        code, cpu, memory = Side(command, self.log).end(patience)
        self.put_down()
        if code != 0:
            raise RuntimeError(f"ended with {code}")
        return {"wall": time.monotonic() - began, "cpu": [cpu, 0], "memory": [memory, 0], "wire": 0, "sent": 0}

    def measure_wherry(self, command, patience):
        before, began = self.network.sent(), time.monotonic()
        done = subprocess.run([*self.network.on(0), *(str(word) for word in command)], stdout=subprocess.PIPE, stderr=self.log, timeout=patience)
        if done.returncode:
            raise RuntimeError(f"ended with {done.returncode}")
        # From the start of the program to its end, as for the others; their servers run already, this one's receiver starts too.
        wall, report = time.monotonic() - began, json.loads(done.stdout)
        crossed = self.network.since(before)
        if crossed["wire"] is None:
            crossed["wire"] = report["bytes_wire"]
        return {
            "wall": wall, "cpu": [report[side]["cpu_secs"] for side in ("sender", "receiver")],
            "memory": [report[side]["peak_memory_bytes"] for side in ("sender", "receiver")],
            **crossed,
            "note": f"{report['transport']}: {report['transport_reason']}",
        }


TOOLS = {
    "wherry": ("wherry", ()), "wherry level 0": ("wherry", ("--level", "0")), "wherry level 1": ("wherry", ("--level", "1")),
    "wherry checksum": ("wherry", ("--checksum",)), "wherry quic": ("wherry", ("--transport", "quic")), "wherry tcp": ("wherry", ("--transport", "tcp")),
    "nbdcopy": ("nbdcopy", ()), "nbdcopy TLS": ("nbdcopy", (True,)), "qemu-img": ("qemu_img", ()), "qemu-img TLS": ("qemu_img", (True,)),
    "rsync": ("rsync", ()), "rsync -z": ("rsync", ("-z",)), "rsync ssh": ("rsync_ssh", ()), "rsync -z ssh": ("rsync_ssh", ("-z",)),
    "dd zstd ssh": ("zstd_ssh", ()), "local copy": ("local_copy", ()),
}
CLEAR = {"nbdcopy", "qemu-img", "rsync", "rsync -z", "local copy"}
ALL = ["wherry", "wherry quic", "wherry tcp", "nbdcopy", "nbdcopy TLS", "qemu-img", "qemu-img TLS", "rsync", "rsync ssh", "dd zstd ssh", "local copy"]
SHAPED = ["wherry", "nbdcopy", "nbdcopy TLS", "rsync -z", "rsync -z ssh", "dd zstd ssh"]
