"""Jobs: a compression that was asked for, its progress and what came of it."""
