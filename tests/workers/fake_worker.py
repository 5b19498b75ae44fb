"""The real worker, whose jobs run the fake pipeline: `celery -A tests.workers.fake_worker worker`."""

import sys

from workers import tasks

tasks.child_command = (sys.executable, "-P", "-m", "tests.workers.fake_child")
celery = tasks.celery
