"""An HTTP/1.1 server for the gateway's tests: ADDRESS PORT [CERTIFICATE KEY].

/echo        the request's head as JSON          /sse        three events
/body        the request's body                  /trailers   chunked, with a trailer
/continue    100, then the body                  /websocket  echoes text frames
/early       103 with a Link, then 200           /encoded?C  a body encoded so, whatever was accepted
/token       an OAuth token response, numbered;  /close      a body that ends with the connection
             of code=held after a /release      /large      512 MiB
/sse?held    the second event after a /release  /progress   how much of them this end has sent
/hold        reads the head, and no more before a /release
"""
import base64, gzip, hashlib, json, re, socket, ssl, sys, threading, time, zlib


tokens = []
released = threading.Event()
progress = {"sent": 0}


def wait_for_release():
    released.wait()
    released.clear()


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            return None
        head += byte
    return head.decode("latin1")


def read_exactly(stream, n):
    data = b""
    while len(data) < n:
        piece = stream.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def read_body(stream, headers):
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            line = b""
            while not line.endswith(b"\r\n"):
                line += read_exactly(stream, 1)
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while read_exactly(stream, 2) != b"\r\n":  # trailers: not used here
                    pass
                return body
            body += read_exactly(stream, size)
            read_exactly(stream, 2)
    return read_exactly(stream, int(headers.get("content-length", "0")))


def respond(stream, body, extra="", status="200 OK"):
    stream.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body)


def websocket(stream, headers):
    accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
    stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while True:
        first, second = read_exactly(stream, 2)
        if first & 15 == 8:
            return
        mask = read_exactly(stream, 4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(read_exactly(stream, second & 127)))
        stream.sendall(bytes([0x81, len(data)]) + data)


def serve(stream):
    while (head := read_head(stream)) is not None:
        lines = head.split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {}
        for line in lines[1:]:
            if line:
                name, value = line.split(":", 1)
                headers[name.lower()] = value.strip()
        path = target.split("?")[0]
        if path == "/continue":
            stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if path == "/websocket":
            return websocket(stream, headers)
        if path == "/hold":
            wait_for_release()
            return
        body = read_body(stream, headers)
        if path == "/echo":
            respond(stream, json.dumps({"line": lines[0], "headers": headers, "body": body.decode("latin1")}).encode(), f"X-Echo: {headers.get('authorization', '')}\r\n")
        elif path in ("/body", "/continue"):
            respond(stream, body)
        elif path == "/sse":
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(3):
                event = f"data: {i}\n\n".encode()
                stream.sendall(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                if i == 0 and target.endswith("?held"):
                    wait_for_release()
            stream.sendall(b"0\r\n\r\n")
        elif path == "/trailers":
            stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Checksum\r\n\r\n4\r\nbody\r\n0\r\nChecksum: abc\r\n\r\n")
        elif path == "/early":
            stream.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            respond(stream, b"after the hints")
        elif path == "/encoded":
            coding = target.split("?")[1]
            text = b"x" * 200_000 + b"x-key is " + headers.get("x-key", "").encode() + b" end"
            data = {"gzip": gzip.compress(text), "deflate": zlib.compress(text), "br": text, "wrong": text, "cut": gzip.compress(text)[:-20]}[coding]
            respond(stream, data, f"Content-Encoding: {coding if coding in ('deflate', 'br') else 'gzip'}\r\n")
        elif path == "/large":
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 536870912\r\n\r\n")
            for _ in range(8192):
                stream.sendall(b"x" * 65536)
                progress["sent"] += 65536
        elif path == "/progress":
            respond(stream, json.dumps(progress).encode())
        elif path == "/release":
            released.set()
            respond(stream, b"released")
        elif re.sub(";[^/]*", "", path.lower()).replace("//", "/").replace("%6f", "o") == "/token":
            if body == b"code=held":
                wait_for_release()
            tokens.append(len(tokens) + 1)
            respond(stream, json.dumps({"access_token": f"real-access-token-no-{tokens[-1]}", "refresh_token": "bad\r\nx: y" if body == b"bad" else "real-refresh-token", "got": body.decode("latin1")}).encode(), "Content-Type: application/json\r\n")
        elif path == "/close":
            stream.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
            return
        else:
            respond(stream, b"nothing here", status="404 Not Found")


def handle(connection, context):
    try:
        stream = context.wrap_socket(connection, server_side=True) if context else connection
        serve(stream)
        if context:
            stream = stream.unwrap()
    except (OSError, EOFError, ValueError):
        pass
    finally:
        connection.close()
        try:
            stream.close()
        except (OSError, NameError, UnboundLocalError):
            pass


def main():
    context = None
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
        context.set_alpn_protocols(["http/1.1"])
    with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=handle, args=(connection, context), daemon=True).start()


main()
