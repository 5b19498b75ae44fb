"""Us against the peers that install from the package index: `make bench-peers`.

Every peer compresses in an environment and a process of its own. What is the same for all is done here, once,
by the same code: the network they are given, the rows they may look at, counting, fine-tuning, judging,
timing.
"""
