"""Signatures of requests, as docs/signatures.md of the proxy defines them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time


def sign_request(
    secret: str,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    timestamp: str | None = None,
    nonce: str | None = None,
) -> dict[str, str]:
    """The three headers of a signed request. Every try needs a signature of its own.

    :param secret: the signing secret of an API key (`dss_…`)
    :param target: the path with its query, as in the request line
    """
    timestamp = str(int(time.time())) if timestamp is None else timestamp
    nonce = secrets.token_hex(16) if nonce is None else nonce
    text = "\n".join([method.upper(), target, timestamp, nonce, hashlib.sha256(body).hexdigest()])
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {"X-Signature-Timestamp": timestamp, "X-Signature-Nonce": nonce, "X-Signature": signature}
