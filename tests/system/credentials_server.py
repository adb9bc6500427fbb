"""What a sandbox's credentials are for:  credentials_server.py CERTIFICATE KEY LOG REPOSITORIES

A server on 127.0.0.1. It prints its ports, that of HTTPS and that of plain HTTP, and appends to LOG one JSON object a request: method, path, and the
credentials that it came with. LOG is all that ever sees them.
  /echo         the Authorization and X-Token headers as they came
  /git/NAME     git over HTTP (git http-backend) with Basic credentials, on REPOSITORIES
  CONNECT       a proxy, to this server itself with TLS, whatever the host
  /v1/oauth/token  the tokens of a login, new ones each time; LOG has them as "given"
  /v2/          a registry of images, in memory, with Basic credentials; POST, PATCH and PUT to push
"""
import base64, hashlib, http.server, json, os, secrets, ssl, subprocess, sys, threading, urllib.parse

certificate, key, log, repositories = sys.argv[1:]
blobs, manifests, lock = {}, {}, threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self):
        path, _, query = self.path.partition("?")
        authorization = self.headers.get("Authorization", "")
        token = self.headers.get("X-Token", "")
        with lock, open(log, "a") as file:
            file.write(json.dumps({"method": self.command, "path": self.path, "authorization": authorization, "token": token}) + "\n")
        body = self.body()
        if path == "/echo":
            self.answer(200, json.dumps({"authorization": authorization, "token": token}).encode())
        elif path == "/v1/oauth/token":
            tokens = {"access_token": "real-" + secrets.token_hex(20), "refresh_token": "real-" + secrets.token_hex(20)}
            with lock, open(log, "a") as file:
                file.write(json.dumps({"given": tokens}) + "\n")
            self.answer(200, json.dumps(tokens).encode(), Content_Type="application/json")
        elif path.startswith("/git/"):
            self.git(path[4:], query, authorization, body)
        elif path.startswith("/v2"):
            if not authorization.startswith("Basic "):
                return self.answer(401, WWW_Authenticate='Basic realm="registry"')
            self.registry(path, query, body)
        else:
            self.answer(404)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = serve

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def git(self, path, query, authorization, body):
        kind, _, given = authorization.partition(" ")
        user = base64.b64decode(given).decode().partition(":")[0] if kind == "Basic" else ""
        if not user:
            return self.answer(401, WWW_Authenticate='Basic realm="git"')
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": repositories, "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": user,
            "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=environment, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        self.answer(status, content, **{name.replace("-", "_"): value for name, value in headers.items() if name != "Content-Length"})

    def registry(self, path, query, body):
        words = path.strip("/").split("/")  # v2 NAME blobs|manifests ...
        if len(words) == 1:
            return self.answer(200)
        kind, rest = words[2], words[3:]
        if kind == "blobs" and rest[0] == "uploads":
            upload = "/v2/%s/blobs/uploads/" % words[1]
            if self.command == "POST":
                with lock:
                    blobs[upload + str(len(blobs))] = b""
                    upload += str(len(blobs) - 1)
                return self.answer(202, Location=upload, Range="0-0")
            with lock:
                blobs[path] = blobs.get(path, b"") + body
            if self.command == "PATCH":
                return self.answer(202, Location=path, Range="0-%d" % (len(blobs[path]) - 1))
            digest = urllib.parse.parse_qs(query)["digest"][0]
            if digest != "sha256:" + hashlib.sha256(blobs[path]).hexdigest():
                return self.answer(400)
            blobs[digest] = blobs[path]
            return self.answer(201, Location="/v2/%s/blobs/%s" % (words[1], digest), Docker_Content_Digest=digest)
        store = blobs if kind == "blobs" else manifests
        if kind == "manifests" and self.command == "PUT":
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            manifests[rest[0]] = manifests[digest] = (self.headers["Content-Type"], body)
            return self.answer(201, Location=path, Docker_Content_Digest=digest)
        if rest[0] not in store:
            return self.answer(404, b'{"errors":[{"code":"%s_UNKNOWN","message":"unknown"}]}' % kind[:-1].upper().encode(),
                               Content_Type="application/json")
        media, content = ("application/octet-stream", store[rest[0]]) if kind == "blobs" else store[rest[0]]
        self.answer(200, content, Content_Type=media, Docker_Content_Digest="sha256:" + hashlib.sha256(content).hexdigest())


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):  # a client that goes away is nothing to talk about
        pass


plain = Server(("127.0.0.1", 0), Handler)
server = Server(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=plain.serve_forever, daemon=True).start()
print(server.server_address[1], plain.server_address[1], flush=True)
server.serve_forever()
