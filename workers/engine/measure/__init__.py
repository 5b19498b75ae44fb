"""Measuring: cost, quality, fidelity, latency, memory."""
