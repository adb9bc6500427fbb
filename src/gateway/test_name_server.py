"""A name server for the gateway's tests: ADDRESS LOG. Writes "NAME TYPE" into LOG for each question.

alias.test    is another name for real-name.test, which has an address, a text and a mail server
*.many.test   each has an address
Nothing else exists.
"""
import socket, struct, sys

A, CNAME, MX, TXT = 1, 5, 15, 16
ADDRESS = bytes([44, 0, 0, 1])


def wire(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def record(name, kind, data):
    return wire(name) + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def answers(name, kind):
    if name.endswith(".many.test"):
        return [record(name, A, ADDRESS)] if kind == A else []
    if name != "alias.test":
        return None
    text = b"text of the real one"
    data = {A: ADDRESS, TXT: bytes([len(text)]) + text, MX: struct.pack(">H", 10) + wire("mail.test")}.get(kind)
    alias = record(name, CNAME, wire("real-name.test"))
    return [alias] + ([record("real-name.test", kind, data)] if data else [])


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    server.bind((sys.argv[1], 53))
    with open(sys.argv[2], "w", buffering=1) as log:
        log.write("ready\n")
        while True:
            query, client = server.recvfrom(4096)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            name, kind, end = ".".join(labels).lower(), *struct.unpack(">H", query[at + 1:at + 3]), at + 5
            log.write(f"{name} {kind}\n")
            found = answers(name, kind)
            head = query[:2] + struct.pack(">HHHHH", 0x8180 | (3 if found is None else 0), 1, len(found or []), 0, 0)
            server.sendto(head + query[12:end] + b"".join(found or []), client)


main()
