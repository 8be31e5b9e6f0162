#!/usr/bin/env python3
"""Receives webhooks of the `cloudthinker` profile and verifies `X-CloudThinker-Signature`.

    WEBHOOK_SECRET='the text typed as the webhook's secret' ./receiver_cloudthinker.py --listen 127.0.0.1:9000

Needs nothing beyond Python. Prints one line per request. Answers 204 to a request whose signature is right and 401 to
any other. This signature covers the body alone, so whoever once saw a request can send it again. Where that matters,
let the profile sign by Standard Webhooks as well, and verify that: it covers id and time too.
"""

import argparse
import collections
import hashlib
import hmac
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_MAX = 2 * 1024 * 1024
REMEMBERED_IDS = 10_000


# As CloudThinker's documentation prints it.
def verify_signature(payload, signature, secret):
    expected = hmac.new(
        secret.encode(),
        payload.encode(),
        hashlib.sha256
    ).hexdigest()
    return hmac.compare_digest(f"sha256={expected}", signature)


class Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, secret, exit_after):
        super().__init__(address, Handler)
        self.secret = secret
        self.exit_after = exit_after
        self.lock = threading.Lock()
        self.seen = collections.OrderedDict()
        self.requests = 0
        self.refused = 0

    def is_new(self, event_id):
        """Whether this is the first time; a real receiver keeps this where it keeps what the event changes."""
        with self.lock:
            new = event_id not in self.seen
            self.seen[event_id] = True
            if len(self.seen) > REMEMBERED_IDS:
                self.seen.popitem(last=False)
            return new

    def finished(self, line, refused):
        with self.lock:
            print(line, flush=True)
            self.requests += 1
            self.refused += refused
            if self.exit_after and self.requests == self.exit_after:
                threading.Thread(target=self.shutdown).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_MAX:
            self.close_connection = True
            self.answer(413 if length.isdecimal() else 411)
            return
        body = self.rfile.read(int(length))
        signature = self.headers.get("X-CloudThinker-Signature", "")
        try:
            right = verify_signature(body.decode(), signature, self.server.secret)
        except (UnicodeDecodeError, TypeError):  # a body that is not UTF-8, a header that is not ASCII
            right = False
        if not right:
            self.answer(401)
            self.server.finished("refused  X-CloudThinker-Signature is missing or wrong", refused=True)
            return
        try:
            event = json.loads(body)
            event_id, event_type = event["id"], event["type"]
        except (ValueError, TypeError, KeyError):
            self.answer(400)
            self.server.finished("refused  the body is not an envelope with id and type", refused=True)
            return
        self.answer(204)
        word = "received" if self.server.is_new(event_id) else "again   "
        self.server.finished(f"{word} {event_id} {event_type} {len(body)} bytes", refused=False)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=address, default="127.0.0.1:9000", help="HOST:PORT; port 0 picks a free one")
    parser.add_argument("--exit-after", type=int, metavar="N", help="stop after N requests; exit 1 if one was refused")
    arguments = parser.parse_args()
    secret = os.environ.get("WEBHOOK_SECRET", "")
    if not secret:
        parser.error("set WEBHOOK_SECRET to the webhook's secret, exactly as it was typed when the webhook was created")
    server = Receiver(arguments.listen, secret, arguments.exit_after)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"listening on http://{server.server_address[0]}:{server.server_address[1]}/", flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 1 if server.refused else 0


if __name__ == "__main__":
    sys.exit(main())
