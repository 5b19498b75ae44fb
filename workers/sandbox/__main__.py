"""`python -m workers.sandbox`: what this machine confines jobs with; fails if that is not all."""

import sys

from workers.sandbox.kernel import examine, refusal

if __name__ == "__main__":
    kernel = examine()
    sys.stdout.write(f"{kernel}\n")
    sys.exit(refusal(kernel) if kernel.missing else 0)
