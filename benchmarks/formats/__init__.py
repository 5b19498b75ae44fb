"""Files as people have them through whole jobs: what goes in, what comes out, and what is refused."""
