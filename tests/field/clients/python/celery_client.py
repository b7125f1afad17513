"""celery 5.7 on redis, with its stock instrumentation in web and in the worker; web waits for the result."""

from celery_tasks import take
from opentelemetry.instrumentation.celery import CeleryInstrumentor


def instrument():
    CeleryInstrumentor().instrument()


def ask(url, headers):
    take.delay(url, headers["x-field-ask"]).get(timeout=5)
