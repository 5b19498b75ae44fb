"""HTTP that every slice shares: dependencies, pages, conditional requests, downloads, middleware."""
