"""A client made by openapi-python-client logs in, lists the models, and reads a chat as one JSON and as a stream."""

import os

from deepseek_proxy_client import AuthenticatedClient, Client
from deepseek_proxy_client.api.auth import post_auth_login
from deepseek_proxy_client.api.chat import get_v1_models, post_v1_chat_completions
from deepseek_proxy_client.models import PostAuthLoginBody, PostAuthLoginResponse200, PostV1ChatCompletionsBody

base_url = os.environ["PROXY_URL"]
password = PostAuthLoginBody(username=os.environ["PROXY_USER"], password=os.environ["PROXY_PASSWORD"])
login = post_auth_login.sync(client=Client(base_url=base_url), body=password)
assert isinstance(login, PostAuthLoginResponse200), login

client = AuthenticatedClient(base_url=base_url, token=login.access_token)
models = get_v1_models.sync(client=client)
assert models is not None and not hasattr(models, "error"), models

message = {"role": "user", "content": "Say hello."}
body = {"model": "deepseek-v4-pro", "messages": [message]}
chat = post_v1_chat_completions.sync(client=client, body=PostV1ChatCompletionsBody.from_dict(body))
assert chat is not None and not isinstance(chat, str) and not hasattr(chat, "error"), chat

events = 0
with client.get_httpx_client().stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
    assert response.status_code == 200
    for line in response.iter_lines():
        events += line.startswith("data: ")
    assert line == "" and events > 2
print(f"openapi-python-client: {events} events")
