#!/usr/bin/env python3
"""Publishes events on NATS and waits until JetStream has them on disk.

    pip install nats-py
    NATS_URL=nats://127.0.0.1:4222 ./publish.py acme invoice.paid invoice.json
    echo '{"amount": 12}' | ./publish.py acme invoice.paid

Each file, or standard input, is the data of one event; its bytes reach receivers unchanged. Prints one line per event.
An event counts as accepted when its acknowledgement is here and not before, which is why this is a JetStream publish: a
plain NATS publish tells the producer nothing. An unacknowledged event is sent again under the same id, and JetStream
drops the second copy if the first had arrived after all.
"""

import argparse
import asyncio
import os
import pathlib
import sys
import uuid

import nats
import nats.errors
import nats.js.errors

TRIES = 3


def headers(arguments, event_id):
    """The id makes repeats harmless: of one id in a project there is one event."""
    found = {"Posthaste-Id": event_id}
    if arguments.time:
        found["Posthaste-Time"] = arguments.time
    if arguments.content_type:
        found["Content-Type"] = arguments.content_type
    return found


async def publish(jetstream, arguments, event_id, body):
    subject = f"events.{arguments.project}.{arguments.type}"
    for attempt in range(1, TRIES + 1):
        try:
            ack = await jetstream.publish(subject, body, timeout=5, headers=headers(arguments, event_id))
            break
        except nats.errors.TimeoutError:
            if attempt == TRIES:
                raise
    print(f"{event_id} {subject} is number {ack.seq} of stream {ack.stream}", flush=True)


async def run(arguments):
    client = await nats.connect(arguments.nats_url, max_reconnect_attempts=3, connect_timeout=3, error_cb=silent)
    try:
        for source in arguments.files or ["-"]:
            body = sys.stdin.buffer.read() if source == "-" else pathlib.Path(source).read_bytes()
            await publish(client.jetstream(), arguments, arguments.id or f"evt_{uuid.uuid4().hex}", body)
    finally:
        await client.close()


async def silent(_):
    """Errors reach us as exceptions too."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", help="the project's name")
    parser.add_argument("type", help="the event's type, for example invoice.paid")
    parser.add_argument("files", nargs="*", metavar="file", help="one event each; - or none: standard input")
    parser.add_argument("--id", help="the event's id: 1 to 64 of A-Z a-z 0-9 _ -; default: a random one")
    parser.add_argument("--time", help="when it happened, RFC 3339; default: when JetStream stored it")
    parser.add_argument("--content-type", help="media type of the data; default: application/json")
    parser.add_argument("--nats-url", default=os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
                        help="default: $NATS_URL, else nats://127.0.0.1:4222")
    arguments = parser.parse_args()
    if arguments.id and len(arguments.files) > 1:
        parser.error("--id names one event, so give one file")
    try:
        asyncio.run(run(arguments))
    except nats.js.errors.NoStreamResponseError:
        sys.exit("no stream takes this subject: is Posthaste running on this NATS server?")
    except nats.js.errors.APIError as error:
        sys.exit(f"JetStream refused it: {error.description}")
    except nats.errors.TimeoutError:
        sys.exit(f"no acknowledgement in {TRIES} tries: it may be accepted or not; publish it again under its id")
    except (nats.errors.Error, OSError) as error:
        sys.exit(f"cannot publish: {error or type(error).__name__}")


if __name__ == "__main__":
    main()
