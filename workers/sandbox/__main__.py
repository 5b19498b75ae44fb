"""`python -m workers.sandbox`: what this machine has to confine jobs with; fails where a piece is missing."""

import sys

from workers.sandbox.kernel import examine

if __name__ == "__main__":
    kernel = examine()
    sys.stdout.write(f"{kernel}\n")
    sys.exit(1 if kernel.missing else 0)
