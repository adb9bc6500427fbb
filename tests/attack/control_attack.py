"""Against the keeper's worker, as root in the sandbox: HTTP/2 as no server speaks it, on the control port itself.

  control_attack.py RESULT     goes into the background at once; RESULT is written when all is over
"""
import struct
import sys
import time

from hostile_port import (CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, Lost, PING, PUSH, Port, RESET, SETTINGS,
                          SETTINGS_ACK, WINDOW, detach, field, frame, integer, say, stopped_guest)

# Answers :status 200 (static table, RFC 7541 appendix A).
OK = b"\x88"


def hello(port):
    port.synchronise()
    port.send(frame(SETTINGS, 0, 0))
    # Whatever was accepted before, it waits for us: let it ask.
    port.send(frame(WINDOW, 0, 0, struct.pack(">I", 1 << 20)))


def wait_for_request(port, seconds):
    """The number of the stream that the worker opens next; 0 if it asks for nothing."""
    end = time.monotonic() + seconds
    seen = port.held
    try:
        while time.monotonic() < end:
            at = seen.find(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            rest = seen[at + 24:] if at >= 0 else b""
            while len(rest) >= 9:
                size = int.from_bytes(rest[:3], "big")
                if len(rest) < 9 + size:
                    break
                if rest[3] == HEADERS:
                    return int.from_bytes(rest[5:9], "big")
                rest = rest[9 + size:]
            seen += port.receive(end - time.monotonic())
    except Lost:
        pass
    return 0


def garbage(port):
    port.send(b"G" * (1 << 20), 10)


def giant_frame(port):
    hello(port)
    port.send(b"\xff\xff\xff" + bytes([DATA, 0]) + struct.pack(">I", 1) + b"x" * (1 << 20), 10)


def settings_without_end(port):
    hello(port)
    port.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 0) * 6) * 50000, 10)


def pings_whose_answers_nobody_reads(port):
    hello(port)
    port.send(frame(PING, 0, 0, b"12345678") * 200000, 10)


def resets_without_end(port):
    hello(port)
    stream = wait_for_request(port, 10) or 1
    port.send(b"".join(frame(RESET, 0, stream + 2 * i, struct.pack(">I", 8)) for i in range(20000)), 10)


def headers_without_end(port):
    hello(port)
    stream = wait_for_request(port, 10) or 1
    more = frame(CONTINUATION, 0, stream, field(b"x-more", b"y" * 8000))
    port.send(frame(HEADERS, 0, stream, OK) + more * 4000, 10)


def header_bomb(port):
    """One long field in the table, and then thousands of one-byte references to it (RFC 7541 section 7.3)."""
    hello(port)
    stream = wait_for_request(port, 10) or 1
    stored = b"\x40" + integer(1, 7) + b"x" + integer(4000, 7) + b"y" * 4000
    port.send(frame(HEADERS, 0, stream, OK + stored) +
              frame(CONTINUATION, END_HEADERS, stream, b"\xbe" * 16000) * 500, 10)


def pushes(port):
    hello(port)
    port.send(b"".join(frame(PUSH, END_HEADERS, 1, struct.pack(">I", 2 + 2 * i) + b"\x82\x84\x86") for i in range(5000)), 10)


def window_overflow(port):
    hello(port)
    port.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x7fffffff)) * 4, 10)


def output_with_forged_lengths(port):
    """Frames of a command's output (stdcopy) that claim four gigabytes, and more bytes than any window allows."""
    hello(port)
    stream = wait_for_request(port, 10) or 1
    claim = bytes([1, 0, 0, 0]) + struct.pack(">I", 0xffffffff)
    port.send(frame(HEADERS, END_HEADERS, stream, OK) + frame(DATA, 0, stream, claim), 5)
    port.send(frame(DATA, 0, stream, b"z" * 16000) * 4000, 10)


def goodbye(port):
    hello(port)
    port.send(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0) + b"\x1b[31mFORGED\n" * 400), 10)
    port.send(frame(SETTINGS, SETTINGS_ACK, 0) * 1000, 5)


def no_echo_but_noise(port):
    """Instead of the echo, twice of what may have been left of an old session."""
    port.synchronise(answer=False)
    port.send(b"N" * (33 << 20), 15)


def silence(port):
    hello(port)
    time.sleep(2)


ATTACKS = [garbage, giant_frame, settings_without_end, pings_whose_answers_nobody_reads, resets_without_end,
           headers_without_end, header_bomb, pushes, window_overflow, output_with_forged_lengths, goodbye,
           no_echo_but_noise, silence]


def main():
    finish = detach(sys.argv[1])
    port = Port("sbx.control")
    with stopped_guest():
        for attack in ATTACKS:
            attack(port)
            port.end_session()
            say(attack.__name__)
        port.close()
    say("done")
    finish()


main()
