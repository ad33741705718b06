"""A web server: GET /N answers with N bytes, POST with the SHA-256 of what was sent."""

import hashlib
import http.server
import socket


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(b"z" * int(self.path.strip("/") or 0))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(hashlib.sha256(body).hexdigest().encode())

    def log_message(self, *_arguments):
        pass

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


if __name__ == "__main__":
    with Server(("::", 80), Handler) as server:  # IPv4 as well: bindv6only is 0
        print("ready", flush=True)  # noqa: T201 - who started us waits for it
        server.serve_forever()
