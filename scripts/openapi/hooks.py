"""What schemathesis needs beside the document: a login that is made again when a test has ended it."""

import json
import os
import urllib.error
import urllib.request

import schemathesis

BASE_URL = os.environ["PROXY_URL"]
USERNAME = os.environ.get("PROXY_USER", "")
PASSWORD = os.environ.get("PROXY_PASSWORD", "")
# Those who log in, and who answers: a test that changes them leaves nothing to test.
NEEDED = {"root", "alice", "simulator"}


def login() -> str:
    body = json.dumps({"username": USERNAME, "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{BASE_URL}/auth/login", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["access_token"]


def is_valid(token: str) -> bool:
    headers = {"authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{BASE_URL}/auth/sessions", headers=headers)):
            return True
    except urllib.error.HTTPError:
        return False


if USERNAME:

    @schemathesis.auth(refresh_interval=1)
    class ByLogin:
        token = ""

        def get(self, case, context):
            if not self.token or not is_valid(self.token):
                self.token = login()
            return self.token

        def set(self, case, data, context):
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def filter_case(context, case):
    changes = case.method.upper() != "GET"
    return not (changes and isinstance(case.path_parameters, dict) and case.path_parameters.get("name") in NEEDED)
