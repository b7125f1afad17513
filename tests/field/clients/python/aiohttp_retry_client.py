"""aiohttp 3.14 with aiohttp-retry 2.9: 3 attempts, 100 ms and 200 ms apart, 500 ms each; 429 and 5xx too."""

import asyncio

import aiohttp
from aiohttp_retry import ExponentialRetry, RetryClient
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from web import ATTEMPTS, BACKOFF_S, TIMEOUT_S


def instrument():
    AioHttpClientInstrumentor().instrument()


async def request(url, headers):
    options = ExponentialRetry(attempts=ATTEMPTS, start_timeout=BACKOFF_S, statuses={429})
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        RetryClient(retry_options=options, timeout=timeout) as client,
        client.get(url, headers=headers) as answer,
    ):
        await answer.read()
        answer.raise_for_status()


def ask(url, headers):
    asyncio.run(request(url, headers))
