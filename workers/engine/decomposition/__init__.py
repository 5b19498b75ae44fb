"""Decompositions: pure functions on tensors. They know nothing of networks."""
