"""tenacity 9.2 over httpx 0.28: 3 attempts, 100 ms apart, 500 ms each; 429 and 5xx are tried again."""

import httpx
import tenacity
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from web import ATTEMPTS, BACKOFF_S, TIMEOUT_S


def instrument():
    HTTPXClientInstrumentor().instrument()


def is_retryable(error):
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


@tenacity.retry(
    stop=tenacity.stop_after_attempt(ATTEMPTS),
    wait=tenacity.wait_fixed(BACKOFF_S),
    retry=tenacity.retry_if_exception(is_retryable),
    reraise=True,
)
def ask(url, headers):
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=True, trust_env=False) as client:
        client.get(url, headers=headers).raise_for_status()
