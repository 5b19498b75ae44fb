"""One file per peer. Each runs in that peer's environment as `python -m benchmarks.peers.adapters.<name>
request.json`; nothing of ours but `benchmarks.peers.{convert,counter,worker}` may be imported there."""
