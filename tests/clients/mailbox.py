#!/usr/bin/env python3
"""A mail server that keeps nothing: it prints each mail it gets as a line of JSON. The first line is its port.

It wants the user `posthaste` with the password `sesame`. Once the file REFUSE is there, it answers 451 to every mail.

usage: mailbox.py REFUSE
"""

import asyncio
import json
import os
import sys
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult


class Mailbox:
    async def handle_DATA(self, _server, session, envelope):
        if os.path.exists(sys.argv[1]):
            return "451 not now"
        message = message_from_bytes(envelope.content, policy=policy.default)
        print(
            json.dumps(
                {
                    "from": envelope.mail_from,
                    "to": envelope.rcpt_tos,
                    "subject": message["subject"],
                    "body": message.get_content(),
                    "raw": envelope.content.decode("utf-8"),
                }
            ),
            flush=True,
        )
        return "250 it is here"


def authenticate(_server, _session, _envelope, _mechanism, data):
    return AuthResult(success=data.login == b"posthaste" and data.password == b"sesame")


async def main():
    loop = asyncio.get_running_loop()
    make = lambda: SMTP(Mailbox(), authenticator=authenticate, auth_required=True, auth_require_tls=False)
    server = await loop.create_server(make, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
