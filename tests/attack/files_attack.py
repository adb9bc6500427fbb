"""Against the file server, as root in the sandbox: forged FUSE messages on the files port itself.

  files_attack.py MARKER ROUNDS    MARKER is what must never come back: the content of files outside the workspaces.
                                   ROUNDS: how long the attacks by chance go on.

Workspace 1 has `big`, `folder/secret` and `link` (to outside); 2 is read-only and has `kept`. While there is a file
`racing`, the host exchanges `folder` and `link`.

One line per attack on stdout; "FAILED ..." for what the server should have refused.
"""
import faulthandler
import random
import struct
import sys
import time

from hostile_port import Lost, Port, SYN, say

MARKER = sys.argv[1].encode()
ROUNDS = int(sys.argv[2])
(LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE) = (
    1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16)
SETXATTR, GETXATTR, INIT, OPENDIR, READDIR, CREATE, INTERRUPT, DESTROY = 21, 22, 26, 27, 28, 35, 36, 38
BATCH_FORGET, FALLOCATE, READDIRPLUS, RENAME2, LSEEK, COPY_RANGE = 42, 43, 44, 45, 46, 47
ROOT, EXCHANGE = 1, 2
S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO = 0o100000, 0o020000, 0o060000, 0o010000
BAD_NAMES = [b"..", b".", b"", b"../outside", b"/etc/passwd", b"a/b", b"f/", b"../outside/secret", b"\xff/../x"]


def message(opcode, node, body=b"", unique=1, length=None, uid=0):
    size = 40 + len(body) if length is None else length
    return struct.pack("<IIQQIIIHH", size, opcode, unique, node, uid, uid, 1, 0, 0) + body


class Server:
    def __init__(self, port):
        self.port = port
        self.unique = 1 << 40

    def reply(self):
        """(unique, errno, payload); the marker in any of them is a theft."""
        while True:
            head = self.port.read(16)
            if head.startswith(SYN):
                self.port.read(8)
                continue
            length, error, unique = struct.unpack("<IiQ", head)
            payload = self.port.read(length - 16) if length > 16 else b""
            if MARKER in payload:
                say("FAILED stolen")
            if unique != 0:
                return unique, -error, payload

    def ask_all(self, requests):
        """[(opcode, node, body)]: the (errno, payload) of each, which all are on their way at once."""
        first = self.unique + 2
        self.unique += 2 * len(requests)
        self.port.send(b"".join(message(*request, first + 2 * i) for i, request in enumerate(requests)))
        answers = {}
        while len(answers) < len(requests):
            unique, error, payload = self.reply()
            if first <= unique <= self.unique:
                answers[unique] = error, payload
        return [answers[first + 2 * i] for i in range(len(requests))]

    def ask(self, opcode, node, body=b""):
        return self.ask_all([(opcode, node, body)])[0]

    def expect_refused(self, requests):
        """[(what, opcode, node, body)], all to be answered with an error."""
        for i in range(0, len(requests), 64):
            batch = requests[i:i + 64]
            for request, (error, _) in zip(batch, self.ask_all([request[1:] for request in batch])):
                if error == 0:
                    say("FAILED", request[0])

    def node(self, parent, name):
        error, payload = self.ask(LOOKUP, parent, name + b"\0")
        return struct.unpack("<Q", payload[:8])[0] if error == 0 and len(payload) >= 8 else 0

    def create(self, parent, name, mode=0o644):
        return self.ask(*creation(parent, name, mode))


def creation(parent, name, mode=0o644, flags=0o102):
    return CREATE, parent, struct.pack("<IIII", flags, S_IFREG | mode, 0, 0) + name + b"\0"


def attributes(node, valid, mode=0, uid=0):
    return SETATTR, node, struct.pack("<IIQQQQQQIIIIIIII", valid, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, mode, 0, uid, uid, 0)


def at(size, offset=0, handle=0):
    """The body of READ, READDIR, READDIRPLUS, and the beginning of that of WRITE."""
    return struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)


def names(server, workspace, file):
    requests = []
    for name in BAD_NAMES:
        end = name + b"\0"
        for parent in (workspace, ROOT):
            requests += [
                (f"lookup {name}", LOOKUP, parent, end),
                (f"create {name}", *creation(parent, name)),
                (f"mkdir {name}", MKDIR, parent, struct.pack("<II", 0o755, 0) + end),
                (f"mknod {name}", MKNOD, parent, struct.pack("<IIII", S_IFREG, 0, 0, 0) + end),
                (f"unlink {name}", UNLINK, parent, end),
                (f"rmdir {name}", RMDIR, parent, end),
                (f"symlink {name}", SYMLINK, parent, end + b"t\0"),
                (f"link {name}", LINK, parent, struct.pack("<Q", file) + end),
                (f"rename to {name}", RENAME, parent, struct.pack("<Q", parent) + b"f\0" + end),
                (f"rename {name}", RENAME, parent, struct.pack("<Q", parent) + end + b"x\0"),
            ]
    requests += [("no terminator", LOOKUP, workspace, b"ff"), ("two terminators", LOOKUP, workspace, b"f\0/etc\0")]
    server.expect_refused(requests)
    say("names")


def links(server, workspace, other):
    targets = [b"../outside", b"../outside/secret", b"/", b"/etc/passwd", b"/proc/self/root", b"/proc/1/root/etc/shadow",
               b"/proc/self/fd/3", b"/proc/self/cwd", b"."]
    made = server.ask_all([(SYMLINK, workspace, b"link%d\0" % i + target + b"\0") for i, target in enumerate(targets)])
    requests, hard_links = [], []
    for i, (target, (error, payload)) in enumerate(zip(targets, made)):
        if error != 0:
            continue
        name, node = b"link%d" % i, struct.unpack("<Q", payload[:8])[0]
        for inner in (b"secret", b"etc", b"passwd", b"outside"):
            requests.append((f"through a link to {target}", LOOKUP, node, inner + b"\0"))
            requests.append((f"create through {target}", *creation(node, b"evil")))
        requests += [
            (f"list {target}", READDIR, node, at(4096)),
            (f"read {target}", READ, node, at(4096)),
            (f"write {target}", WRITE, node, at(4) + b"evil"),
            (f"open and truncate {target}", *creation(workspace, name, 0o666, 0o1102)),
            (f"chmod {target}", *attributes(node, 1, mode=0o777)),
            (f"truncate {target}", *attributes(node, 8)),
            ("a hard link in another workspace", LINK, other, struct.pack("<Q", node) + b"l\0"),
            ("a rename into another workspace", RENAME, workspace, struct.pack("<Q", other) + name + b"\0moved\0"),
        ]
        hard_links.append((LINK, workspace, struct.pack("<Q", node) + name + b".hard\0"))  # of the link itself; allowed
    if not requests:
        say("FAILED no link was made")
    server.expect_refused(requests)
    server.ask_all(hard_links)
    say("links")


def devices(server, workspace):
    server.expect_refused([
        (f"device {name}", MKNOD, workspace, struct.pack("<IIII", kind | 0o666, 0x801, 0, 0) + name + b"\0")
        for name, kind in ((b"chr", S_IFCHR), (b"blk", S_IFBLK))
    ])
    error, payload = server.create(workspace, b"setuid", 0o6777)
    node = struct.unpack("<Q", payload[:8])[0] if error == 0 else server.node(workspace, b"setuid")
    if node:
        server.ask_all([attributes(node, 1, mode=S_IFREG | 0o6777), attributes(node, 2 | 4, uid=0)])
        value = b"\x01\0\0\x02" + b"\xff" * 16
        server.expect_refused([
            (f"attribute {attribute}", SETXATTR, node, struct.pack("<II", len(value), 0) + attribute + b"\0" + value)
            for attribute in (b"security.capability", b"trusted.x", b"system.posix_acl_access", b"security.selinux")
        ])
    say("devices")


def read_only(server, workspace):
    file = server.node(workspace, b"kept")
    server.expect_refused([
        ("create in a read-only workspace", *creation(workspace, b"new")),
        ("write", WRITE, file, at(4) + b"evil"),
        ("truncate", *attributes(file, 8)),
        ("chmod", *attributes(file, 1, mode=0o777)),
        ("unlink", UNLINK, workspace, b"kept\0"),
        ("mkdir", MKDIR, workspace, struct.pack("<II", 0o755, 0) + b"new\0"),
        ("symlink", SYMLINK, workspace, b"new\0t\0"),
        ("link", LINK, workspace, struct.pack("<Q", file) + b"new\0"),
        ("fallocate", FALLOCATE, file, struct.pack("<QQQII", 0, 0, 4096, 0, 0)),
    ])
    say("read-only")


def forged_nodes(server):
    requests = []
    for node in [0, *range(2, 64), 1 << 32, (1 << 32) | 1, (7 << 32) | 2, (1 << 63), (1 << 64) - 1, 0x7fffffffffff]:
        requests += [(GETATTR, node, struct.pack("<IIQ", 0, 0, 0)), (LOOKUP, node, b"passwd\0"),
                     (READ, node, at(4096, handle=node)), (READDIRPLUS, node, at(4096, handle=node)),
                     (READLINK, node, b"")]
    for i in range(0, len(requests), 64):
        server.ask_all(requests[i:i + 64])
    say("forged nodes")


def sizes(server, workspace, file):
    for size in (0xffffffff, 1 << 31, 1 << 20):
        requests = []
        for offset in (0, (1 << 63) - 1, (1 << 64) - 1):
            for opcode in (READ, READDIR, READDIRPLUS):
                requests += [(opcode, file, at(size, offset)), (opcode, workspace, at(size, offset))]
            requests += [(WRITE, file, at(size, offset) + b"short"),
                         (GETXATTR, file, struct.pack("<II", size, 0) + b"user.x\0"),
                         (SETXATTR, file, struct.pack("<II", size, 0) + b"user.x\0short"),
                         (LSEEK, file, struct.pack("<QQII", 0, offset, 4, 0))]
        server.ask_all(requests)
    server.ask(COPY_RANGE, file, struct.pack("<QQQQQQQ", 3, 0, 5, 4, 0, 1 << 40, 0))
    # A count that its message cannot hold; no answer is due to either.
    server.port.send(message(BATCH_FORGET, 0, struct.pack("<II", 0xffffffff, 0), 5))
    server.port.send(message(FORGET, workspace, struct.pack("<Q", (1 << 64) - 1), 7))
    server.port.send(message(INTERRUPT, 0, struct.pack("<Q", 9), 9))
    say("sizes")


def short_and_random(server, nodes):
    chance = random.Random(1)
    quiet = {FORGET, BATCH_FORGET, INTERRUPT, DESTROY, INIT}
    opcodes = [opcode for opcode in (*range(1, 54), 4096, 0, 99, 1 << 31) if opcode not in quiet]
    # Not what would fill the disk or end the watch on the workspace itself.
    opcodes = [GETATTR if opcode in (FALLOCATE, UNLINK, RMDIR, RENAME, RENAME2) else opcode for opcode in opcodes]
    tails = [b"", b"", b"", b"", b"..\0", b"x\0", b"../outside/secret\0", b"\0\0\0\0"]
    lengths = [0, 1, 7, 8, 15, 16, 40, 100]
    for _ in range(10 * ROUNDS):
        batch = []
        for _ in range(200):
            opcode = chance.choice(opcodes)
            body = chance.randbytes(chance.choice(lengths)) + chance.choice(tails)
            if opcode in (SETATTR, WRITE, LSEEK, COPY_RANGE):
                body = body[:16]  # too short: a random size could be a valid one
            batch.append(message(opcode, chance.choice(nodes), body, 11))
        server.port.send(b"".join(batch))
        error, _ = server.ask(GETATTR, ROOT, struct.pack("<IIQ", 0, 0, 0))  # and reads what came until then
    if error != 0:
        say("FAILED the root is gone")
    say("random messages")


def rename_race(server, workspace, seconds):
    """A folder and a link to outside change places here, as they do on the host at the same time."""
    end = time.monotonic() + seconds
    walked = 0
    swap = struct.pack("<QII", workspace, EXCHANGE, 0) + b"folder\0link\0"
    while time.monotonic() < end or (walked == 0 and time.monotonic() < end + 30):
        batch = b"".join(
            message(RENAME2, workspace, swap, 13) + message(LOOKUP, workspace, b"folder\0", 13) for _ in range(8))
        server.port.send(batch)
        folder = server.node(workspace, b"folder")
        if not folder:
            continue
        file = server.node(folder, b"secret")
        if file:
            server.ask_all([(READ, file, at(4096)), (WRITE, file, at(6) + b"inside")])
            walked += 1
        server.create(folder, b"made")
    if walked == 0:
        say("FAILED the race was never run")
    say("rename race", walked)


def unread_replies(server, file):
    """Asks for far more than it takes: the server must stop reading, not gather it all."""
    count, size = 40, 1 << 20
    server.port.send(message(READ, file, at(size), 17) * count)
    time.sleep(1)
    left = count * (16 + size)
    while left > 0:
        left -= len(server.port.receive(30))
    say("unread replies")


def last_words(port):
    """Each of these ends the session, and the keeper starts another server."""
    for words in (message(GETATTR, 1, b"", length=0), message(GETATTR, 1, b"", length=39),
                  message(GETATTR, 1, b"", length=0xffffffff), b"\xff" * 65536):
        port.send(words)
        if not port.wait_until_lost(60):
            say("FAILED the session goes on after", words[:4].hex())
        port.synchronise()
        # One that is never told about INIT is asked for everything at once.
        port.send(message(READ, 3, at(4096)))
    port.end_session()
    say("lengths")


def attack(port):
    server = Server(port)
    workspace, other = server.node(ROOT, b"1"), server.node(ROOT, b"2")
    file = struct.unpack("<Q", server.create(workspace, b"f")[1][:8])[0]
    names(server, workspace, file)
    links(server, workspace, other)
    devices(server, workspace)
    read_only(server, other)
    forged_nodes(server)
    sizes(server, workspace, file)
    workspace = server.node(ROOT, b"1")
    server.create(workspace, b"racing")
    rename_race(server, workspace, 1.5 * ROUNDS)
    server.ask(UNLINK, workspace, b"racing\0")
    # What was forgotten above is looked up anew.
    workspace = server.node(ROOT, b"1")
    file = server.node(workspace, b"big")
    unread_replies(server, file)
    short_and_random(server, [ROOT, workspace, other, file, 77, (1 << 32) | 3])
    last_words(port)


def main():
    faulthandler.dump_traceback_later(240, exit=True)
    port = Port("sbx.files")
    port.stop_holder()
    try:
        attack(port)
    finally:
        port.end_holder()
        port.close()
    say("done")


main()
