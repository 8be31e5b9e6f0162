"""Makes a webhook with a Python client that `openapi-python-client` generated from the API's document, and reads it back.

    generated.py FOLDER API TOKEN PROJECT URL     FOLDER holds the generated package
"""

import sys

folder, api, token, project, url = sys.argv[1:]
sys.path.insert(0, folder)

from posthaste_client import AuthenticatedClient  # noqa: E402
from posthaste_client.api.webhooks import create_webhook, list_webhooks  # noqa: E402
from posthaste_client.models import CreatedWebhook, NewWebhook, Problem  # noqa: E402

client = AuthenticatedClient(base_url=api, token=token)

made = create_webhook.sync(project, client=client, body=NewWebhook(name="generated", url=url, events=["invoice.*"]))
assert isinstance(made, CreatedWebhook), made
assert made.secret.startswith("whsec_"), made.secret
found = list_webhooks.sync(project, client=client)
assert [webhook.name for webhook in found.items] == ["generated"], found

refused = create_webhook.sync(project, client=client, body=NewWebhook(name="", url=url, events=["invoice.*"]))
assert isinstance(refused, Problem) and refused.errors[0].pointer == "#/name", refused
print(made.id)
