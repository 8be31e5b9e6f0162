#!/usr/bin/env python3
"""Receives webhooks and verifies them by Standard Webhooks (https://www.standardwebhooks.com).

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_... ./receiver_standard.py --listen 127.0.0.1:9000

Prints one line per request. Answers 204 to a request whose signature is right, at once and before any work is done
with it, and 401 to any other. The same event may come twice; its `webhook-id` is then the same, and the line says so.
"""

import argparse
import collections
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

BODY_MAX = 2 * 1024 * 1024
REMEMBERED_IDS = 10_000


class Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, secret, exit_after):
        super().__init__(address, Handler)
        self.webhook = Webhook(secret)
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
        try:
            # The signature covers the bytes as they came: verify those, never JSON that was parsed and printed again.
            self.server.webhook.verify(body, dict(self.headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            self.answer(401)
            self.server.finished(f"refused  {error}", refused=True)
            return
        self.answer(204)
        event_id = self.headers["webhook-id"]
        word = "received" if self.server.is_new(event_id) else "again   "
        self.server.finished(f"{word} {event_id} {event_type(body)} {len(body)} bytes", refused=False)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def event_type(body):
    try:
        return json.loads(body)["type"]
    except (ValueError, TypeError, KeyError):
        return "-"


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
    if not secret.startswith("whsec_"):
        parser.error("set WEBHOOK_SECRET to the webhook's secret (whsec_...); creating the webhook answered with it")
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
