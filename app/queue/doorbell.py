"""The doorbell: a Celery message says that a job waits in the database, and nothing more.

A message may be lost, doubled or late: the worker that hears it has to win the job's claim, and a job that
nobody took is rung again.
"""

from celery import Celery

TASK = "rankfold.run"
QUEUES = ("cpu", "gpu")
_FULL = 32  # bells in a queue; while all workers are busy for hours, more would only pile up
_EXPIRES_SECONDS = 3600.0

_CONFIGURATION = {
    "accept_content": ["json"],
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {
        "health_check_interval": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "socket_timeout": 10,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "visibility_timeout": 43200,
    },
    "task_acks_late": False,  # the claim decides who works: a message has done its duty when it is heard
    "task_default_queue": "cpu",
    "task_ignore_result": True,
    "task_publish_retry_policy": {
        "interval_max": 0.5,
        "interval_start": 0,
        "interval_step": 0.2,
        "max_retries": 2,
    },
    "worker_disable_prefetch": True,
    "worker_enable_remote_control": False,
    "worker_max_tasks_per_child": 50,
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": False,
}


def make_celery(broker_url: str) -> Celery:
    """The Celery application that both ends share; it connects when it is first used."""
    celery = Celery("rankfold", broker=broker_url)
    celery.conf.update(_CONFIGURATION)
    return celery


def is_full(celery: Celery, queue: str) -> bool:
    """Whether so many bells wait in the queue that another would tell nobody anything.

    Raises `kombu.exceptions.OperationalError` or a `redis` error when the broker is away.
    """
    with celery.pool.acquire(block=True) as connection:
        return int(connection.default_channel.client.llen(queue)) >= _FULL


def ring(celery: Celery, job_id: str, queue: str) -> None:
    """Tell the workers of `queue` that the job waits; gives up after about a second.

    Raises `kombu.exceptions.OperationalError` when the broker is away.
    """
    celery.send_task(TASK, (job_id,), queue=queue, expires=_EXPIRES_SECONDS)
