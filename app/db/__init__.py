"""The database: sessions and tables. SQLite and PostgreSQL, one migration history."""
