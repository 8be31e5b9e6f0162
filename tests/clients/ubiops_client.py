#!/usr/bin/env python3
"""Every webhook call of the published client `ubiops`, unmodified, against Posthaste.

usage: ubiops_client.py HOST PROJECT TOKEN RECEIVER NOBODY

HOST is the base URL of config-api, RECEIVER a URL that answers 200, NOBODY one where nobody listens. At the end one
webhook is left, `kept`, with a protected header whose value is `Token 123`: what a receiver gets by it, the caller sees.
"""

import datetime
import sys
import time
import uuid

import ubiops

HOST, PROJECT, TOKEN, RECEIVER, NOBODY = sys.argv[1:]


def api_of(host, token=TOKEN):
    configuration = ubiops.Configuration()
    configuration.api_key["Authorization"] = f"Token {token}"
    configuration.host = host
    return ubiops.CoreApi(ubiops.ApiClient(configuration))


def refused(status, text, call, *args, **kwargs):
    """The call fails with this status, and the client finds a text that says `text`."""
    try:
        call(*args, **kwargs)
    except ubiops.exceptions.ApiException as error:
        said = error.get_body_message()
        assert error.status == status, f"{error.status} instead of {status}: {error}"
        assert isinstance(said, str) and text in said, f"`{text}` is not in: {said}"
        assert f"Error: {said}" in str(error), str(error)
        return
    raise AssertionError(f"{call.__name__} was not refused with {status}")


def documented(name, **more):
    return ubiops.WebhookCreate(
        **{
            "name": name,
            "url": RECEIVER,
            "headers": [{"key": "Authorization", "value": "Token 123", "protected": True}],
            "object_type": "deployment",
            "object_name": "deployment-1",
            "version": "v1",
            "event": "deployment_request_finished",
            **more,
        }
    )


def names(webhooks):
    return [webhook.name for webhook in webhooks]


def everything(api):
    assert api.webhooks_list(PROJECT) == []

    # --- create: as documented, with every default
    made = api.webhooks_create(PROJECT, documented("webhook-1"))
    assert isinstance(made, ubiops.WebhookDetail)
    uuid.UUID(made.id)
    assert (made.name, made.url) == ("webhook-1", RECEIVER), made
    assert (made.object_type, made.object_name, made.version) == ("deployment", "deployment-1", "v1"), made
    assert made.event == "deployment_request_finished"
    assert (made.description, made.labels) == ("", {}), made
    assert (made.timeout, made.enabled, made.retry, made.include_result) == (10, True, False, False), made
    for date in (made.creation_date, made.last_updated):
        assert isinstance(date, datetime.datetime) and date.tzinfo, date
    [header] = made.headers
    assert (header.key, header.value, header.protected) == ("Authorization", None, True), header

    # --- create: with everything said, and a name that a path cannot hold as it is
    odd = "Slack #1 / ümlaut?"
    full = api.webhooks_create(
        PROJECT,
        documented(
            odd,
            url=f"{RECEIVER}/?a=b",
            headers=[{"key": "X-Team", "value": "blue", "protected": False}],
            object_type="pipeline",
            object_name="pipeline-1",
            version=None,
            event="pipeline_request_failed",
            description="what failed",
            labels={"team": "blue", "event-type": "request-failed"},
            timeout=30,
            enabled=False,
            retry=True,
            include_result=True,
        ),
    )
    assert (full.version, full.description, full.timeout) == (None, "what failed", 30), full
    assert full.labels == {"team": "blue", "event-type": "request-failed"}
    assert (full.enabled, full.retry, full.include_result) == (False, True, True), full
    [header] = full.headers
    assert (header.key, header.value, header.protected) == ("X-Team", "blue", False), header

    # --- get and list
    assert api.webhooks_get(PROJECT, "webhook-1").to_dict() == made.to_dict()
    assert api.webhooks_get(PROJECT, odd).id == full.id
    assert names(api.webhooks_list(PROJECT)) == ["webhook-1", odd]
    for filters, expected in [
        ({"labels": "team:blue"}, [odd]),
        ({"labels": "team:blue,event-type:request-failed"}, [odd]),
        ({"labels": "team:blue,event-type:other"}, []),
        ({"object_type": "deployment"}, ["webhook-1"]),
        ({"event": "pipeline_request_failed"}, [odd]),
        ({"object_type": "deployment", "event": "pipeline_request_failed"}, []),
    ]:
        assert names(api.webhooks_list(PROJECT, **filters)) == expected, filters

    # --- update: what is not named stays, and so does a protected value that is None
    renamed = api.webhooks_update(PROJECT, "webhook-1", ubiops.WebhookUpdate(name="kept"))
    assert (renamed.id, renamed.name, renamed.url) == (made.id, "kept", made.url), renamed
    assert renamed.headers[0].protected
    kept = api.webhooks_update(
        PROJECT,
        "kept",
        ubiops.WebhookUpdate(
            headers=[
                ubiops.WebhookHeader(key="Authorization", value=None, protected=True),
                {"key": "X-Team", "value": "blue", "protected": False},
            ],
            event="deployment_request_completed",
            description="kept",
            labels={"a": "b"},
            timeout=5,
            retry=True,
        ),
    )
    assert [(header.key, header.value) for header in kept.headers] == [("Authorization", None), ("X-Team", "blue")]
    assert (kept.event, kept.description, kept.labels) == ("deployment_request_completed", "kept", {"a": "b"}), kept
    assert (kept.timeout, kept.enabled, kept.retry) == (5, True, True), kept
    assert kept.last_updated > made.last_updated
    kept = api.webhooks_update(PROJECT, "kept", {"retry": False, "enabled": False, "include_result": True})
    assert (kept.enabled, kept.retry, kept.include_result) == (False, False, True), kept
    kept = api.webhooks_update(PROJECT, "kept", {"enabled": True, "include_result": False})
    assert (kept.enabled, kept.include_result) == (True, False), kept
    assert api.webhooks_update(PROJECT, "kept", ubiops.WebhookUpdate()).last_updated == kept.last_updated

    # --- what is refused, and how it reads
    refused(409, "kept", api.webhooks_create, PROJECT, documented("kept"))
    refused(409, "kept", api.webhooks_update, PROJECT, odd, ubiops.WebhookUpdate(name="kept"))
    refused(422, "#/url", api.webhooks_create, PROJECT, documented("b", url="ftp://callback"))
    refused(422, "#/object_type", api.webhooks_create, PROJECT, documented("b", object_type="experiment"))
    refused(422, "#/event", api.webhooks_create, PROJECT, documented("b", event="pipeline_request_failed"))
    refused(422, "#/event", api.webhooks_update, PROJECT, "kept", ubiops.WebhookUpdate(event="anything"))
    refused(422, "#/timeout", api.webhooks_create, PROJECT, documented("b", timeout=31))
    refused(422, "#/headers/0", api.webhooks_create, PROJECT, documented("b", headers=[{"key": "a", "protected": False}]))
    refused(422, "64", api.webhooks_update, PROJECT, "kept", ubiops.WebhookUpdate(name="x" * 65))
    refused(400, "labels", api.webhooks_list, PROJECT, labels="team")
    refused(404, "webhook", api.webhooks_get, PROJECT, "unknown")
    refused(404, "webhook", api.webhooks_update, PROJECT, "unknown", ubiops.WebhookUpdate(name="b"))
    refused(404, "webhook", api.webhooks_delete, PROJECT, "unknown")
    refused(404, "project", api.webhooks_list, "elsewhere")
    refused(404, "test", api.webhook_tests_get, PROJECT, str(uuid.uuid4()))
    wrong = api_of(HOST, "ph_nosuchtokennosuchtokennosuchtokennosuch")
    refused(401, "token", wrong.webhooks_list, PROJECT)

    # --- tests: pending at once; then what came of it
    assert outcome(api, RECEIVER) == ("completed", None)
    status, message = outcome(api, NOBODY, retry=True, headers=[{"key": "a", "value": "b", "protected": True}])
    assert status == "failed" and "connect" in message.lower(), (status, message)
    refused(422, "#/event", api.webhook_tests_create, PROJECT, test_of(RECEIVER, event="anything"))
    assert names(api.webhooks_list(PROJECT)) == ["kept", odd], "a test leaves no webhook behind"

    # --- delete
    assert api.webhooks_delete(PROJECT, odd) is None
    assert names(api.webhooks_list(PROJECT)) == ["kept"]


def test_of(url, **more):
    return ubiops.WebhookTestCreate(
        **{
            "url": url,
            "object_type": "deployment",
            "object_name": "deployment-1",
            "event": "deployment_request_finished",
            **more,
        }
    )


def outcome(api, url, **more):
    """What a test comes to."""
    test = api.webhook_tests_create(PROJECT, test_of(url, **more))
    assert isinstance(test, ubiops.WebhookTestDetail)
    assert (test.status, test.error_message) == ("pending", None), test
    deadline = time.monotonic() + 30
    while test.status == "pending" and time.monotonic() < deadline:
        time.sleep(0.02)
        test = api.webhook_tests_get(PROJECT, test.id)
    return test.status, test.error_message


def main():
    # The client puts /v2 behind a host without a version; the documents say /v2.1.
    v2, v21 = api_of(HOST), api_of(f"{HOST}/v2.1")
    assert v2.api_client.configuration.host.endswith("/v2")
    everything(v2)
    v2.webhooks_delete(PROJECT, "kept")
    everything(v21)
    print("every call of the client went as it should, under /v2 and under /v2.1")


main()
