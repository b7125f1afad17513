"""requests 2.34 with urllib3's Retry: 3 attempts, 0 and 200 ms apart, 500 ms each; 429 and 5xx too.

The spans are those of requests, one around all attempts.
"""

import requests
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from web import ATTEMPTS, BACKOFF_S, TIMEOUT_S

RETRY = Retry(
    total=ATTEMPTS - 1,
    backoff_factor=BACKOFF_S,
    status_forcelist=[429, 500, 502, 503, 504],
    respect_retry_after_header=False,
)


def instrument():
    RequestsInstrumentor().instrument()


def ask(url, headers):
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", HTTPAdapter(max_retries=RETRY))
        session.get(url, headers=headers, timeout=TIMEOUT_S).raise_for_status()
