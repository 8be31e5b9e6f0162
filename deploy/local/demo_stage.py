"""What the demo's story is told with: the screen, the receivers, `posthaste dev` as a process, and REST."""

import asyncio
import contextlib
import ctypes
import hashlib
import hmac
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

STOPPED_WITHIN = 20


class Failure(Exception):
    """Something in the story did not happen."""


class Screen:
    """Prints whole lines, from several threads; colours only where a person is looking."""

    COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

    def __init__(self):
        self.colourful = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.lock = threading.Lock()
        self.step_number = 0

    def paint(self, colour, text):
        return f"\033[{self.COLOURS[colour]}m{text}\033[0m" if self.colourful else text

    def line(self, text=""):
        with self.lock, contextlib.suppress(OSError):  # whoever read our output may have gone; we still clean up
            print(text, flush=True)

    def step(self, text):
        self.step_number += 1
        self.line()
        self.line(self.paint("bold", f"{self.step_number}. {text}"))

    def good(self, text):
        self.line(f"   {self.paint('green', '✓')} {text}")

    def bad(self, text):
        self.line(f"   {self.paint('red', '✗')} {text}")

    def note(self, text):
        self.line(self.paint("dim", f"   {text}"))

    def table(self, head, rows, colour_of):
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

        def laid_out(row):
            return "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()

        self.line("   " + self.paint("bold", laid_out(head)))
        for row in rows:
            self.line("   " + self.paint(colour_of(row), laid_out(row)))


screen = Screen()


# As CloudThinker's documentation prints it.
def verify_signature(payload, signature, secret):
    expected = hmac.new(
        secret.encode(),
        payload.encode(),
        hashlib.sha256
    ).hexdigest()
    return hmac.compare_digest(f"sha256={expected}", signature)


class Request:
    """One request that a receiver got."""

    def __init__(self, event_id, status, problem, body):
        self.event_id, self.status, self.problem, self.body = event_id, status, problem, body
        self.at = time.monotonic()


class Receiver(ThreadingHTTPServer):
    """An endpoint that verifies and remembers what comes; it answers 503 to an event's first `failures` requests."""

    daemon_threads = True

    def __init__(self, name, failures=0):
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.name, self.failures = name, failures
        self.secret = None
        self.has_body_signature = False
        self.lock = threading.Lock()
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/{name}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def handle_error(self, request, client_address):
        screen.note(f"{self.name}: {sys.exc_info()[1]!r}")

    def close(self):
        self.shutdown()
        self.server_close()

    def problem_with(self, headers, body):
        """None, or why the request cannot be trusted. Every signature that it has must hold."""
        try:
            if self.has_body_signature:
                signature = headers.get("X-CloudThinker-Signature", "")
                if not verify_signature(body.decode(), signature, self.secret):
                    return "X-CloudThinker-Signature is missing or wrong"
            if "webhook-signature" in headers or not self.has_body_signature:
                key = self.secret if self.secret.startswith("whsec_") else self.secret.encode()
                Webhook(key).verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError, TypeError) as error:
            return str(error)
        return None

    def receive(self, headers, body):
        event_id = headers.get("webhook-id") or member_of(body, "id")
        problem = self.problem_with(headers, body)
        with self.lock:
            before = sum(request.event_id == event_id for request in self.requests)
            status = 401 if problem else 503 if before < self.failures else 204
            self.requests.append(Request(event_id, status, problem, body))
        verdict = screen.paint("red", f"REFUSED: {problem}") if problem else "signature verified"
        answer = screen.paint("green" if status == 204 else "yellow", f"answers {status}")
        arrow, event = screen.paint("cyan", "←"), f"{member_of(body, 'type'):<31} {short(event_id):<13}"
        screen.line(f"   {arrow} {self.name:<8} {event} {verdict}, {answer}")
        return status

    def of(self, event_id):
        with self.lock:
            return [request for request in self.requests if request.event_id == event_id]

    def refused(self):
        with self.lock:
            return [request for request in self.requests if request.problem]


def member_of(body, name):
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)[name])
    return "-"


def short(event_id):
    return event_id if len(event_id) <= 13 else f"{event_id[:7]}…{event_id[-5:]}"


class ReceiverHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.answer(self.server.receive(self.headers, body))

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def closed_port():
    """The URL of a port where nobody answers, and which nobody else can take meanwhile: bound, but never listening."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unheard.getsockname()[1]}/nowhere"


PR_SET_PDEATHSIG = 1
prctl = getattr(ctypes.CDLL(None), "prctl", None)


def die_with_parent():
    """Even if this script is killed outright, `posthaste dev` gets a SIGTERM and stops what it has started."""
    if prctl:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Posthaste:
    """`posthaste dev` in a process group of its own, with everything it writes below `folder`."""

    def __init__(self, binary, folder):
        # Postgres runs as an unprivileged user where we are root, and has to reach its files; nobody has to reach the
        # ready file, which holds a token, or the log.
        self.scratch, private = folder / "scratch", folder / "private"
        self.scratch.mkdir()
        private.mkdir(mode=0o700)
        folder.chmod(0o711)
        self.scratch.chmod(0o711)
        self.ready_file, self.log = private / "ready.json", private / "posthaste.log"
        self.addresses = {}
        command = [binary, "dev", "--ready-file", str(self.ready_file)]
        environment = {**os.environ, "TMPDIR": str(self.scratch)}
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
                    start_new_session=True, preexec_fn=die_with_parent)
        except OSError as error:
            raise Failure(f"cannot run {binary}: {error}") from None

    async def eventually(self, seconds, lacking):
        """Waits until `lacking` finds nothing: it answers None, or in words what is not so yet."""
        deadline = time.monotonic() + seconds
        while (what := await lacking()) is not None:
            if self.process.poll() is not None:
                raise Failure(f"posthaste dev ended by itself with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise Failure(f"after {seconds} s still: {what}")
            await asyncio.sleep(0.05)

    async def ready(self, within):
        async def lacking():
            return None if self.ready_file.exists() else "posthaste dev is not ready"

        await self.eventually(within, lacking)
        self.addresses = json.loads(self.ready_file.read_text())
        lacking = {"api", "ingest", "nats", "database", "admin_token"} - self.addresses.keys()
        if lacking:
            raise Failure(f"the ready file lacks {', '.join(sorted(lacking))}")

    def stop(self):
        """Asks it to stop and waits; kills what does not go. Returns what is wrong with how it went."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOPPED_WITHIN)
        status = self.process.poll()
        left = self.family()
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
        if status is None:
            return f"posthaste dev did not stop within {STOPPED_WITHIN} s"
        if left:
            return f"posthaste dev left behind: {', '.join(left.values())}"
        if remains := self.remains():
            return f"posthaste dev left behind: {', '.join(remains)}"
        return None if status == 0 else f"posthaste dev ended with status {status} when it was asked to stop"

    def family(self):
        """Every process that works below our folder, by number: in its process group or not."""
        mark, found = os.fsencode(self.scratch), {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if int(entry.name) != os.getpid() and (mark in command or mark in (entry / "environ").read_bytes()):
                    words = command.replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(entry.name)] = f"process {entry.name} ({words[:60]})"
        return found

    def remains(self):
        """Files, and ports that still answer. A server that was there before may stay."""
        found = [f"the file {path}" for path in self.scratch.iterdir()]
        servers = {"api": "", "ingest": "", "nats": "NATS_URL", "database": "DATABASE_URL"}
        for name, given in servers.items():
            address = urllib.parse.urlsplit(self.addresses.get(name, ""))
            with contextlib.suppress(OSError, ValueError):
                if address.hostname and address.port and given not in os.environ:
                    socket.create_connection((address.hostname, address.port), 1).close()
                    found.append(f"the {name} port {address.port}")
        return found

    def tail(self):
        with contextlib.suppress(OSError):
            return [line[:300] for line in self.log.read_text(errors="replace").splitlines()[-25:]]
        return []


class Refused(Failure):
    """The API answered with a problem."""

    def __init__(self, method, url, status, text):
        super().__init__(f"{method} {url} answered {status}: {text}")
        self.status = status


class Rest:
    """The REST API (or ingest), with one token."""

    # Addresses on this machine are not for a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __init__(self, base, token):
        self.base, self.token = base.rstrip("/"), token

    async def call(self, method, path, body=None, **query):
        query = {name: value for name, value in query.items() if value is not None}
        url = self.base + path + ("?" + urllib.parse.urlencode(query) if query else "")
        return await asyncio.to_thread(self.send, method, url, body)

    def send(self, method, url, body):
        # Bytes are JSON already, and go out as they are.
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=content, headers=headers, method=method)
        try:
            with self.opener.open(request, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise Refused(method, url, error.code, error.read().decode(errors="replace")) from None
        except (OSError, ValueError) as error:
            raise Failure(f"{method} {url}: {error}") from None

    async def all(self, path, **query):
        """Every item of a list, page by page."""
        items, cursor = [], None
        while True:
            page = await self.call("GET", path, limit=5, cursor=cursor, **query)
            items += page["items"]
            cursor = page["next"]
            if cursor is None:
                return items
