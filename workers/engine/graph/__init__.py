"""The working form of a network and what may be done to it: trace, match, rewrite, prune."""
