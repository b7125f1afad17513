"""inventory: a celery worker with its stock instrumentation, as one process with threads."""

from celery_tasks import app
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from web import set_up_tracing

provider = set_up_tracing("inventory")
CeleryInstrumentor().instrument()
app.worker_main(
    ["worker", "--pool", "threads", "--concurrency", "4", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
)
provider.shutdown()
