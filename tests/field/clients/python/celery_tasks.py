"""The task of the queue's clients, in web (which sends it) and in inventory (the worker, which runs it).

celery 5.7 on redis: autoretry, 3 attempts, 500 ms apart. The worker asks the fault server what happens at each arrival,
by a plain socket without instrumentation.
"""

import http.client
import os
from urllib.parse import urlsplit

from celery import Celery

app = Celery("inventory", broker=os.environ["FIELD_REDIS"], backend=os.environ["FIELD_REDIS"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)


class Unavailable(Exception):
    pass


@app.task(
    name="inventory.take",
    bind=True,
    autoretry_for=(Unavailable,),
    max_retries=2,
    default_retry_delay=0.5,
    retry_backoff=False,
)
def take(self, url, number):
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=5)
    connection.request("GET", address.path, headers={"x-field-ask": number})
    status = connection.getresponse().status
    connection.close()
    if status >= 400:
        raise Unavailable(str(status))
