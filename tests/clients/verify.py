#!/usr/bin/env python3
"""Receivers that were written elsewhere, on requests as a receiver got them.

usage: verify.py HOW < REQUESTS

REQUESTS is JSON, `{"secret": ..., "requests": [{"headers": {...}, "body": "..."}]}`. HOW is one of

  standard      the published library `standardwebhooks`
  cloudthinker  the verifier that CloudThinker documents, as it stands there
  lambda        the AWS Lambda handler that it documents, given the body as a function URL gives it
  github        what a GitHub workflow on `repository_dispatch` reads: `github.event.client_payload.title`

Prints a line for each request, and fails where one is not as it should be.
"""

import hashlib
import hmac
import json
import sys

import standardwebhooks


# --- as documented, to the character -------------------------------------------------------------------------------------
def verify_signature(payload, signature, secret):
    expected = hmac.new(
        secret.encode(),
        payload.encode(),
        hashlib.sha256
    ).hexdigest()
    return hmac.compare_digest(f"sha256={expected}", signature)


def lambda_handler(event, context):
    body = json.loads(event['body'])

    if body['type'] == 'recommendation.created':
        # Process new recommendation
        process_recommendation(body['data'])

    return {'statusCode': 200}
# -------------------------------------------------------------------------------------------------------------------------


processed = []


def process_recommendation(data):
    processed.append(data)


def standard(request, secret):
    verifier = standardwebhooks.Webhook(secret)
    verifier.verify(request["body"], request["headers"])
    for changed in (request["body"] + " ", request["body"].replace("e", "f", 1)):
        try:
            verifier.verify(changed, request["headers"])
        except standardwebhooks.WebhookVerificationError:
            continue
        raise AssertionError("a changed body verified")
    return request["headers"]["webhook-id"]


def cloudthinker(request, secret):
    signature = request["headers"]["x-cloudthinker-signature"]
    assert verify_signature(request["body"], signature, secret), signature
    assert not verify_signature(request["body"] + " ", signature, secret)
    assert not verify_signature(request["body"], signature, secret + "x")
    return signature


def aws_lambda(request, _secret):
    before = len(processed)
    assert lambda_handler({"body": request["body"], "headers": request["headers"]}, None) == {"statusCode": 200}
    return json.dumps(processed[before:])


def github(request, _secret):
    dispatch = json.loads(request["body"])
    assert set(dispatch) <= {"event_type", "client_payload"}, "GitHub refuses any other member"
    assert isinstance(dispatch["event_type"], str) and len(dispatch["event_type"]) <= 100
    assert isinstance(dispatch["client_payload"], dict) and len(dispatch["client_payload"]) <= 10
    return f"New recommendation: {dispatch['client_payload']['title']}"


def main():
    how = {"standard": standard, "cloudthinker": cloudthinker, "lambda": aws_lambda, "github": github}[sys.argv[1]]
    given = json.load(sys.stdin)
    assert given["requests"], "nothing to verify"
    for request in given["requests"]:
        print(how(request, given["secret"]))


main()
