"""The workers: one sandboxed child per job, the stages of a job, and the engine below them."""
