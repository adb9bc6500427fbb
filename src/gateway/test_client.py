"""Clients for the gateway's tests, to 127.0.0.1:PORT and with the authority in FILE: websocket|grpc NAME PORT FILE."""
import base64, os, socket, ssl, sys

kind, name, port, file = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]


def websocket():
    context = ssl.create_default_context(cafile=file)
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=30), server_hostname=name)
    key = base64.b64encode(os.urandom(16)).decode()
    stream.sendall(f"GET /websocket HTTP/1.1\r\nHost: {name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.recv(1)
    print(head.split(b"\r\n")[0].decode())
    for word in (b"first", b"second"):
        mask = os.urandom(4)
        stream.sendall(bytes([0x81, 0x80 | len(word)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(word)))
        data = b""
        while len(data) < 2 + len(word):
            data += stream.recv(100)
        print(data[2:].decode())
    stream.close()


def grpc_calls():
    import grpc

    credentials = grpc.ssl_channel_credentials(open(file, "rb").read())
    options = [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        echo = channel.stream_stream("/test.Echo/Stream")
        for reply in echo(iter([b"a", b"b", b"c"]), timeout=30):
            print(reply.decode())
        try:
            channel.unary_unary("/test.Echo/Fail")(b"x", timeout=30)
        except grpc.RpcError as error:
            print(error.code().name, error.details())


{"websocket": websocket, "grpc": grpc_calls}[kind]()
