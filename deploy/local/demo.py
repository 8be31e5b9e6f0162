#!/usr/bin/env python3
"""Tells the story of Posthaste on a terminal, with real processes, and checks every sentence of it.

It runs `posthaste dev`, creates two projects and their webhooks over REST, publishes the example events of the
catalogues on NATS (one of them over HTTP) and watches them arrive: signed, retried where a receiver fails, given up
where nobody answers. Then it reads the log back over REST.

Exit status: 0 if all of it happened, 1 with the reason if something did not, 2 if it could not begin, 130 or 143 if it
was interrupted. However it ends, it leaves no process, no port and no folder behind.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # nothing stays behind, not even a cache
signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to take down, Ctrl-C just ends this
try:
    import nats
    import nats.errors

    from demo_stage import Failure, Posthaste, Receiver, Refused, Rest, closed_port, screen
except ImportError as missing:
    sys.stderr.write(f"{missing}. `make demo` installs what is missing; or: pip install nats-py standardwebhooks\n")
    sys.exit(2)

ROOT = pathlib.Path(__file__).resolve().parents[2]
CATALOGUES = ROOT / "proto-schemas" / "catalogues"

# Deadlines in seconds, with room for a slow machine. A fresh one initialises a database first; the slowest delivery
# takes two retries, a second apart.
READY_WITHIN = 90
ACTIVE_WITHIN = 10
ARRIVED_WITHIN = 20
RECORDED_WITHIN = 20
# A definition is in force everywhere one second after the API has answered.
IN_FORCE_AFTER = 1.0


class Event:
    """An example event: where it is published, and what its receivers must get."""

    def __init__(self, project, event_type, data, event_id, timestamp=None):
        self.project, self.type, self.data, self.id, self.timestamp = project, event_type, data, event_id, timestamp

    def problem_with(self, body):
        """None, or how the body differs from what the project's profile promises."""
        if self.project.profile == "uniskai":
            return None if body == self.data else "the body is not the published bytes"
        envelope = json.loads(body)
        if list(envelope) != ["id", "type", "timestamp", "workspace_id", "data"]:
            return f"the envelope's members are {', '.join(envelope)}"
        expected = {"id": self.id, "type": self.type, "timestamp": self.timestamp, "workspace_id": self.project.name}
        for member, value in expected.items():
            if envelope[member] != value:
                return f"`{member}` is {envelope[member]!r} and not {value!r}"
        return None if self.data in body else "`data` is not the published bytes"


class Project:
    """A project, and the API with its own token."""

    def __init__(self, profile, name, rest, token):
        self.profile, self.name, self.rest, self.token = profile, name, rest, token
        self.path = f"/v1/projects/{name}"

    @classmethod
    async def create(cls, profile, admin):
        name = profile
        try:
            await admin.call("POST", "/v1/projects", {"name": name, "profile": profile})
        except Refused as refused:
            if refused.status != 409:
                raise
            # Somebody's own database, where the demo has been before.
            name = f"{profile}-{secrets.token_hex(3)}"
            await admin.call("POST", "/v1/projects", {"name": name, "profile": profile})
        answer = await admin.call("POST", f"/v1/projects/{name}/tokens", {"name": "demo"})
        screen.good(f"project {screen.paint('bold', name)} with the profile {profile}")
        return cls(profile, name, Rest(admin.base, answer["token"]), answer["token"])

    async def create_webhook(self, name, url, events, **more):
        body = {"name": name, "url": url, "events": events, **more}
        webhook = await self.rest.call("POST", f"{self.path}/webhooks", body)
        screen.good(f"webhook {screen.paint('bold', f'{name:<8}')} {' '.join(events):<24} → {url}")
        return webhook


class Story:
    """One telling. Its methods are its chapters, in order."""

    def __init__(self, posthaste, inbox, flaky, thinker, nowhere_url):
        self.posthaste, self.nowhere_url = posthaste, nowhere_url
        self.inbox, self.flaky, self.thinker = inbox, flaky, thinker
        self.receivers = [inbox, flaky, thinker]

    async def tell(self):
        try:
            await self.start()
            await self.configure()
            await self.publish()
            await self.arrive()
            await self.read_log()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Failure(f"an answer is not what was expected: {error!r}") from error

    async def start(self):
        screen.step("posthaste dev: all four services, with NATS and Postgres")
        began = time.monotonic()
        await self.posthaste.ready(READY_WITHIN)
        addresses = self.posthaste.addresses
        screen.good(f"ready after {time.monotonic() - began:.1f} s")
        for name in ("api", "ingest", "nats"):
            screen.note(f"{name:<7} {addresses[name]}")
        screen.note("this is a development set-up: receivers on this machine and without TLS are allowed")

    async def configure(self):
        screen.step("Two projects, and webhooks for three receivers and for a port where nobody answers")
        admin = Rest(self.posthaste.addresses["api"], self.posthaste.addresses["admin_token"])
        self.uniskai = await Project.create("uniskai", admin)
        self.cloudthinker = await Project.create("cloudthinker", admin)
        self.projects = (self.uniskai, self.cloudthinker)
        retry = {"delays": ["0s", "1s", "1s"]}

        # No secret given: the answer holds a new one, this once.
        webhook = await self.uniskai.create_webhook("inbox", self.inbox.url, ["*"])
        self.inbox.secret = webhook["secret"]
        webhook = await self.uniskai.create_webhook("flaky", self.flaky.url, ["spot-recreated"], retry=retry)
        self.flaky.secret = webhook["secret"]
        # CloudThinker's secrets are text that the user makes up; its signature has a header of its own.
        self.thinker.secret = secrets.token_urlsafe(32)
        self.thinker.has_body_signature = True
        await self.cloudthinker.create_webhook(
            "thinker", self.thinker.url, ["recommendation.*"], secret=self.thinker.secret)
        await self.cloudthinker.create_webhook(
            "nowhere", self.nowhere_url, ["recommendation.created"], retry={"delays": ["0s", "1s"]})
        for project in self.projects:
            await self.wait_until_active(project)
        await asyncio.sleep(IN_FORCE_AFTER)

    async def wait_until_active(self, project):
        async def lacking():
            webhooks = await project.rest.all(f"{project.path}/webhooks")
            states = [(webhook["name"], webhook["state"]) for webhook in webhooks]
            return "; ".join(f"{name} is {state}" for name, state in states if state != "active") or None

        await self.posthaste.eventually(ACTIVE_WITHIN, lacking)

    async def publish(self):
        screen.step("The catalogues' example events, published by a plain NATS client, and one over HTTP")
        self.events = self.examples()
        try:
            client = await nats.connect(self.posthaste.addresses["nats"], connect_timeout=5, error_cb=unheard)
            try:
                for event in self.events:
                    await self.publish_on_nats(client.jetstream(), event)
            finally:
                await client.close()
        except (nats.errors.Error, OSError) as error:
            raise Failure(f"publishing on NATS: {error or type(error).__name__}") from error
        self.events.append(await self.publish_over_http())

    def examples(self):
        found = []
        for number, path in enumerate(sorted(CATALOGUES.glob("uniskai/*/example.json")), 1):
            found.append(Event(self.uniskai, path.parent.name, path.read_bytes().strip(), f"evt_demo_{number}"))
        for path in sorted(CATALOGUES.glob("cloudthinker/*/envelope.json")):
            # The documentation prints the whole envelope, so id and time are known too.
            envelope = json.loads(path.read_text())
            data = (path.parent / "example.json").read_bytes().strip()
            found.append(Event(self.cloudthinker, envelope["type"], data, envelope["id"], envelope["timestamp"]))
        if len(found) != 9:
            raise Failure(f"there are {len(found)} documented events below {CATALOGUES} and not 9")
        return found

    async def publish_on_nats(self, jetstream, event):
        subject = f"events.{event.project.name}.{event.type}"
        headers = {"Nats-Msg-Id": f"{event.project.name}:{event.id}"}
        if event.timestamp:
            headers["Posthaste-Time"] = event.timestamp
        ack = await jetstream.publish(subject, event.data, timeout=5, headers=headers)
        screen.line(f"   {screen.paint('cyan', '→')} NATS {subject:<46} acknowledged as {ack.stream} {ack.seq}")

    async def publish_over_http(self):
        project, event_type = self.uniskai, "trial-period-ending"
        data = (CATALOGUES / "uniskai" / event_type / "example.json").read_bytes().strip()
        ingest = Rest(self.posthaste.addresses["ingest"], project.token)
        path = f"{project.path}/events"
        answer = await ingest.call("POST", path, b'{"type":"%s","data":%s}' % (event_type.encode(), data))
        screen.line(f"   {screen.paint('cyan', '→')} HTTP POST {path:<41} accepted as {answer['id']}")
        return Event(project, event_type, data, answer["id"])

    def owed(self):
        """Every (receiver, event) that must arrive."""
        pairs = [(self.inbox, event) for event in self.events if event.project is self.uniskai]
        pairs += [(self.flaky, event) for event in self.events if event.type == "spot-recreated"]
        return pairs + [(self.thinker, event) for event in self.events if event.project is self.cloudthinker]

    async def arrive(self):
        screen.step("What arrives; the flaky one fails twice and is tried again a second later")
        owed = self.owed()

        async def lacking():
            for receiver in self.receivers:
                for request in receiver.refused():
                    raise Failure(f"{receiver.name} could not verify {request.event_id}: {request.problem}")
            missing = [f"{event.id} at {receiver.name}" for receiver, event in owed
                       if not any(request.status == 204 for request in receiver.of(event.id))]
            return f"not arrived: {', '.join(missing)}" if missing else None

        await self.posthaste.eventually(ARRIVED_WITHIN, lacking)
        for receiver, event in owed:
            for request in receiver.of(event.id):
                if problem := event.problem_with(request.body):
                    raise Failure(f"{receiver.name} got {event.id}, but {problem}: {request.body!r}")
        screen.good(f"{len(owed)} deliveries arrived, each signed and with the bytes that were published")
        self.check_retries()

    def check_retries(self):
        event = next(event for event in self.events if event.type == "spot-recreated")
        requests = self.flaky.of(event.id)
        answers = [request.status for request in requests]
        if answers != [503, 503, 204]:
            raise Failure(f"flaky answered {answers} and not [503, 503, 204]")
        gaps = [later.at - earlier.at for earlier, later in zip(requests, requests[1:])]
        if min(gaps) < 1:
            raise Failure(f"the retries came after {gaps} s; each should wait 1 s")
        screen.good(f"flaky got the same event three times, {' and '.join(f'{gap:.1f} s' for gap in gaps)} apart")

    async def read_log(self):
        screen.step("The log, read back over REST")
        attempts = await self.attempts_on_record()
        head = ("event", "webhook", "attempt", "status", "ms", "outcome", "next attempt")
        screen.table(head, [row(attempt) for attempt in attempts], colour_of=colour_of_row)
        for attempt in attempts:
            final = (attempt["webhook_name"], attempt["attempt"]) not in {("flaky", 1), ("flaky", 2), ("nowhere", 1)}
            if final != (attempt["next_attempt_at"] is None):
                raise Failure(f"the next attempt after {attempt['id']} is {attempt['next_attempt_at']}")
        screen.good(f"{len(attempts)} attempts on record, as many as were made (times are UTC)")
        await self.check_dead()
        await self.check_events()

    def expected_log(self):
        """(webhook, event, attempt, status, outcome) of every attempt."""
        rows = [(receiver.name, event.id, 1, 204, "delivered")
                for receiver, event in self.owed() if receiver is not self.flaky]
        for receiver, event in self.owed():
            if receiver is self.flaky:
                rows += [("flaky", event.id, 1, 503, "failed"), ("flaky", event.id, 2, 503, "failed"),
                         ("flaky", event.id, 3, 204, "delivered")]
            elif receiver is self.thinker:
                rows += [("nowhere", event.id, 1, None, "failed"), ("nowhere", event.id, 2, None, "failed")]
        return rows

    async def attempts_on_record(self):
        """The log says what happened a moment after it did; the last retry may still be under way."""
        expected, attempts = self.expected_log(), []

        async def lacking():
            attempts.clear()
            for project in self.projects:
                log = await project.rest.all(f"{project.path}/attempts")
                # The endpoint checks of the beginning are in the log, too.
                attempts.extend(attempt for attempt in log if not attempt["trial"])
            found = [(a["webhook_name"], a["event_id"], a["attempt"], a["status"], a["outcome"]) for a in attempts]
            missing = [entry for entry in expected if entry not in found]
            wrong = [entry for entry in found if entry not in expected]
            if len(found) == len(expected) and not missing and not wrong:
                return None
            return f"of {len(expected)} attempts {len(found)} are on record; missing: {missing}, unexpected: {wrong}"

        await self.posthaste.eventually(RECORDED_WITHIN, lacking)
        return sorted(attempts, key=lambda attempt: attempt["started_at"])

    async def check_dead(self):
        for project, names in ((self.uniskai, []), (self.cloudthinker, ["nowhere"])):
            dead = await project.rest.all(f"{project.path}/deliveries", state="dead")
            if [delivery["webhook_name"] for delivery in dead] != names:
                raise Failure(f"the dead deliveries of {project.name} are {dead}")
            for delivery in dead:
                if not delivery["reason"]:
                    raise Failure("a dead delivery has no reason")
                screen.good(f"{delivery['event_type']} → {delivery['webhook_name']} is dead: {delivery['reason']}")

    async def check_events(self):
        async def lacking():
            for project in self.projects:
                events = await project.rest.all(f"{project.path}/events")
                # What Posthaste itself tells, of the dead delivery, is an event, too.
                recorded = {event["id"] for event in events if not event["type"].startswith("posthaste.")}
                published = {event.id for event in self.events if event.project is project}
                if recorded != published:
                    return f"the events of {project.name} on record are {recorded} and not {published}"
            return None

        await self.posthaste.eventually(RECORDED_WITHIN, lacking)
        screen.good(f"{len(self.events)} events on record, as many as were published")


def row(attempt):
    status = str(attempt["status"] or attempt["error_class"])
    next_attempt = attempt["next_attempt_at"]
    return (attempt["event_type"], attempt["webhook_name"], str(attempt["attempt"]), status,
            f"{attempt['duration_ms']:.1f}", attempt["outcome"],
            next_attempt.split("T")[1][:12].rstrip("Z") if next_attempt else "-")


def colour_of_row(cells):
    return "green" if cells[5] == "delivered" else "yellow"


async def unheard(_):
    """nats-py reports errors here as well as by exceptions."""


async def run(binary, stack, folder):
    """The story, with all that it needs; `stack` takes it down again, last things first."""
    receivers = []
    for name, failures in (("inbox", 0), ("flaky", 2), ("thinker", 0)):
        receiver = Receiver(name, failures)
        stack.callback(receiver.close)
        receivers.append(receiver)
    nowhere_url = stack.enter_context(closed_port())
    posthaste = Posthaste(binary, folder)
    try:
        await Story(posthaste, *receivers, nowhere_url).tell()
    except Failure:
        for line in posthaste.tail():
            screen.note(line)
        posthaste.stop()
        raise
    except BaseException:
        posthaste.stop()
        raise
    screen.step("Stopping")
    if problem := posthaste.stop():
        raise Failure(problem)


async def guarded(binary):
    """Turns the signals that end programs into a cancellation, so that everything is taken down on every way out."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    received = []

    def interrupt(number):
        if received:
            screen.note("already stopping; one moment")
        else:
            this.cancel()
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt, number)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="posthaste-demo-"))
    try:
        with contextlib.ExitStack() as stack:
            await run(binary, stack, folder)
        shutil.rmtree(folder)
        screen.good("no process, port or folder has stayed behind")
        return 0
    except asyncio.CancelledError:
        screen.line()
        screen.bad("interrupted")
        return 128 + received[0]
    except Failure as failure:
        screen.line()
        screen.bad(str(failure))
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = str(ROOT / "target" / "debug" / "posthaste")
    parser.add_argument("binary", nargs="?", default=os.environ.get("POSTHASTE_BIN", built),
                        help="the program `posthaste`; default: $POSTHASTE_BIN, else target/debug/posthaste")
    binary = parser.parse_args().binary
    if not os.access(binary, os.X_OK):
        parser.error(f"{binary} is no program; `make demo` builds it")
    began = time.monotonic()
    status = asyncio.run(guarded(binary))
    if status == 0:
        screen.line()
        screen.line(screen.paint("green", f"All of it happened, in {time.monotonic() - began:.0f} s."))
    # A reader that has gone must not turn the interpreter's last flush into an error.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        return status
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


if __name__ == "__main__":
    sys.exit(main())
