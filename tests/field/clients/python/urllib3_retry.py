"""urllib3 2.8 with its Retry and its own instrumentation: 3 attempts, 0 and 200 ms apart, 500 ms each."""

import urllib3
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from requests_urllib3 import RETRY
from web import TIMEOUT_S


def instrument():
    URLLib3Instrumentor().instrument()


def ask(url, headers):
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", url, headers=headers, timeout=TIMEOUT_S, retries=RETRY)
        if answer.status >= 400:
            raise urllib3.exceptions.HTTPError(str(answer.status))
