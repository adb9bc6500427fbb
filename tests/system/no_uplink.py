"""A network without uplink, in which everything that is sent to anywhere arrives here and is written down.

  unshare --net no_uplink.py LOG COMMAND...

Runs COMMAND in a network of its own, whose one way out leads into this one. In the log: one line for each destination
that was spoken to, `tcp ADDRESS PORT`, `udp ADDRESS PORT`, `dns NAME`, `other PROTOCOL ADDRESS`; and `ready` when COMMAND
has ended. Every address answers on port 80 with "trapped", every name server with 93.184.215.14. Ends with its stdin.
"""
import os
import socket
import struct
import subprocess
import sys
import threading
import time

# The answer of every name: an address that is nobody's private one, since policy treats those apart.
ANSWER = "93.184.215.14"
# Documentation addresses (RFC 5737, RFC 3849).
HERE, INSIDE, HERE6, INSIDE6 = "198.51.100.1", "198.51.100.2", "2001:db8::1", "2001:db8::2"
RESOLVER = "203.0.113.53"
IP_PKTINFO = 8  # linux/in.h
log = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
lock = threading.Lock()
seen = set()


def note(line):
    with lock:
        if line not in seen:
            seen.add(line)
            os.write(log, line.encode() + b"\n")


def name_in(query):
    parts, at = [], 12
    while at < len(query) and query[at] != 0:
        parts.append(query[at + 1:at + 1 + query[at]].decode("ascii", "backslashreplace"))
        at += query[at] + 1
    return ".".join(parts), at + 5


def note_packet(packet):
    if packet[0] >> 4 == 6:
        if packet[6] not in (0, 58):  # the kernel's own neighbour discovery
            note(f"other {packet[6]} {socket.inet_ntop(socket.AF_INET6, packet[24:40])}")
        return
    head = (packet[0] & 15) * 4
    protocol, target, rest = packet[9], socket.inet_ntoa(packet[16:20]), packet[head:]
    if protocol == 6:
        if rest[13] & 0x12 == 2:  # SYN alone
            note(f"tcp {target} {struct.unpack('>H', rest[2:4])[0]}")
    elif protocol == 17:
        source, port = struct.unpack(">HH", rest[:4])
        if port == 53:
            note("dns " + name_in(rest[8:])[0])
        if source != 53:
            note(f"udp {target} {port}")
    elif protocol != 1 or rest[0] != 3:  # but for the kernel's own word that nobody listens
        note(f"other {protocol} {target}")


def watch(device, senders):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
        s.bind((device, 0))
        while True:
            packet = s.recv(65535)[14:]
            if len(packet) < 28 or packet[0] >> 4 not in (4, 6):
                continue
            sender = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
            if senders is None or sender in senders:
                note_packet(packet)


def answer_names():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        s.bind(("", 53))
        while True:
            query, ancillary, _, client = s.recvmsg(4096, 256)
            asked = ancillary[0][2][8:12]  # struct in_pktinfo: ifindex, spec_dst, addr
            _, end = name_in(query)
            kind = struct.unpack(">H", query[end - 4:end - 2])[0]
            answer = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if kind == 1 else 0, 0, 0) + query[12:end]
            if kind == 1:
                answer += struct.pack(">HHHIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton(ANSWER)
            s.sendmsg([answer], [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, asked, asked))], 0, client)


def answer_requests():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", 80))
        s.listen(64)
        while True:
            client, _ = s.accept()
            with client:
                client.settimeout(5)
                try:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntrapped")
                except OSError:
                    pass


def in_background(target, *arguments):
    threading.Thread(target=target, args=arguments, daemon=True).start()


def ip(*commands):
    """Those of IPv6 may fail: a machine may have none."""
    for command in commands:
        subprocess.run(command.split(), check=not command.startswith("ip -6"), stderr=subprocess.DEVNULL)


def inside():
    sys.stdin.buffer.readline()  # the way out is there
    ip("ip link set lo up", f"ip addr add {INSIDE}/24 dev out", "ip link set out up", f"ip route add default via {HERE}",
       f"ip -6 addr add {INSIDE6}/64 dev out nodad", f"ip -6 route add default via {HERE6}")
    # Whatever name server the machine has, here it is one that is not its own.
    resolver = sys.argv[1] + ".resolv"
    with open(resolver, "w") as file:
        file.write(f"nameserver {RESOLVER}\n")
    if os.path.exists("/etc/resolv.conf"):
        subprocess.run(["mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf")], check=True)
    in_background(watch, "lo", None)
    in_background(answer_requests)
    subprocess.run(sys.argv[3:], check=True, stdin=subprocess.DEVNULL)
    note("ready")
    sys.stdin.buffer.read()


def outside():
    child = subprocess.Popen(["unshare", "--net", "--mount", sys.executable, __file__, sys.argv[1], "--inside"] +
                             sys.argv[2:], stdin=subprocess.PIPE)
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{child.pid}/ns/net") == ours:
        time.sleep(0.01)
    ip("ip link set lo up", f"ip link add in type veth peer name out netns {child.pid}", f"ip addr add {HERE}/24 dev in",
       "ip link set in up", "ip route add local 0.0.0.0/0 dev lo", f"ip -6 addr add {HERE6}/64 dev in nodad",
       "ip -6 route add local ::/0 dev lo")
    in_background(watch, "in", {socket.inet_aton(INSIDE), socket.inet_pton(socket.AF_INET6, INSIDE6)})
    in_background(answer_names)
    in_background(answer_requests)
    child.stdin.write(b"\n")
    child.stdin.flush()
    sys.stdin.buffer.read()
    child.stdin.close()
    child.wait()


if sys.argv[2] == "--inside":
    inside()
else:
    outside()
