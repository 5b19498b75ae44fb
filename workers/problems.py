"""What a user is told when a job ends for a reason that is not in the input: never a detail of the server."""

from app.contract.problem import Problem

INTERNAL_ERROR = Problem.of(
    "internal_error",
    "Something in this server failed while it worked on the job.",
    status=500,
    hint="Submit the job once more; if it fails again, the worker's log says why.",
)
OUT_OF_MEMORY = Problem.of(
    "out_of_memory",
    "The job needs more memory than a job may have on this server.",
    status=500,
    hint="Use a smaller batch_size or model, or raise RANKFOLD_JOB_MEMORY_BYTES on the worker.",
)
KILLED = Problem.of(
    "worker_lost",
    "The job's process was killed, which mostly means that the machine ran out of memory.",
    status=500,
    hint="Use a smaller batch_size or model, or a worker with more memory.",
)
STORAGE_UNAVAILABLE = Problem.of(
    "storage_unavailable",
    "The server's storage could not be reached.",
    status=503,
    hint="Submit the job once more later.",
)
TIME_LIMIT = Problem.of(
    "time_limit",
    "The job took longer than a job may take on this server.",
    hint="Use fewer epochs or less data, or raise RANKFOLD_JOB_SECONDS on the worker.",
)
HEAVY_FILE = Problem.of(
    "out_of_memory",
    "Reading the file needs more memory than a job may have on this server.",
    hint="Upload a smaller model or data set, or raise RANKFOLD_JOB_MEMORY_BYTES on the worker.",
)
SLOW_FILE = Problem.of(
    "time_limit",
    "Reading the file took longer than it may on this server.",
    hint="Upload a smaller model or data set, or raise RANKFOLD_INSPECTION_SECONDS on the worker.",
)
DISK_LIMIT = Problem.of(
    "disk_limit",
    "The job wrote more files than a job may on this server, or larger ones.",
    status=500,
    hint="Use a smaller model or fewer values of `keep`, or raise RANKFOLD_JOB_DISK_BYTES on the worker.",
)
THREAD_LIMIT = Problem.of(
    "thread_limit",
    "The job started more threads than a job may.",
    status=500,
    hint="Set RANKFOLD_THREADS on the worker to the number of its cores, and submit the job once more.",
)
INPUT_MISSING = Problem.of(
    "input_missing",
    "The model or a data set was deleted before the job could use it.",
    status=409,
    hint="Upload the file again and submit a new job.",
)
