"""Convolutions, and every form they may take: chains of ordinary convolutions."""
