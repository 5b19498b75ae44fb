"""Plans: what a job would do, as far as it can be told without running anything."""
