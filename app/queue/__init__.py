"""The queue: the database row is the job, a broker message is only its doorbell."""
