"""Choosing ranks: by fraction, by energy, or by one allocation under a budget."""
