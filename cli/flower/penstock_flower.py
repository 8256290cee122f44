"""The Celery application that Flower watches through; Flower's environment has nothing else of Penstock."""

import os

from celery import Celery
from kombu.entity import Queue

app = Celery("penstock", broker=os.environ["CELERY_BROKER_URL"])
app.config_from_object(
    {
        "accept_content": ["json"],
        "event_serializer": "json",
        # Their depths are on the broker page even while no worker says that it reads them.
        "task_queues": [
            Queue(name)  # type: ignore[no-untyped-call]
            for name in os.environ["PENSTOCK_QUEUES"].split(",")
        ],
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
    }
)
