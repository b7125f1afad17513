"""As requests_urllib3, with the instrumentation of urllib3 as well: its spans are below those of requests."""

import requests_urllib3
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from requests_urllib3 import ask  # noqa: F401


def instrument():
    requests_urllib3.instrument()
    URLLib3Instrumentor().instrument()
