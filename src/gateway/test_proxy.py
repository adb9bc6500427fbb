"""Upstream proxies for the gateway's tests: http|socks PORT USER PASSWORD. Every name leads to 44.0.0.1."""
import base64, socket, sys, threading

SITE = "44.0.0.1"


def exactly(stream, n):
    data = b""
    while len(data) < n:
        piece = stream.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def splice(client, port):
    server = socket.create_connection((SITE, port))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)


def http(client, user, password):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(client, 1)
    wanted = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
    if user and b"Proxy-Authorization: " + wanted not in head:
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        return
    target = head.split(b" ")[1]
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    splice(client, int(target.rsplit(b":", 1)[1]))


def socks(client, user, password):
    version, count = exactly(client, 2)
    methods = exactly(client, count)
    if user:
        if 2 not in methods:
            client.sendall(b"\x05\xff")
            return
        client.sendall(b"\x05\x02")
        _, size = exactly(client, 2)
        name = exactly(client, size)
        secret = exactly(client, exactly(client, 1)[0])
        good = (name.decode(), secret.decode()) == (user, password)
        client.sendall(b"\x01" + (b"\x00" if good else b"\x01"))
        if not good:
            return
    else:
        client.sendall(b"\x05\x00")
    kind = exactly(client, 4)[3]
    if kind != 3:  # the name must be left to us
        client.sendall(b"\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00")
        return
    exactly(client, exactly(client, 1)[0])
    port = int.from_bytes(exactly(client, 2), "big")
    client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    splice(client, port)


def handle(client, kind, user, password):
    try:
        (http if kind == "http" else socks)(client, user, password)
    except (OSError, EOFError, ValueError):
        pass
    finally:
        client.close()


kind, port, user, password = sys.argv[1:5]
with socket.create_server(("44.0.0.9", int(port))) as listener:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(connection, kind, user, password), daemon=True).start()
