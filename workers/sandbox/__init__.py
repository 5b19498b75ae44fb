"""What confines a job's process once it has started: after `lock.lock` it can compute, and nothing else.

Knows neither the service nor the engine. `docs/sandbox.md` has the table of what is denied by which means.
"""
