"""Ranks: which are worth a look, and how much the network minds what they lose."""
