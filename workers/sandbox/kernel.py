"""What this machine's kernel has to confine a process with."""

from dataclasses import dataclass

import landlockpy
import seccompy
from seccompy import SeccompError

COMPLETE_LANDLOCK = 6
"""The version of Landlock's interface from which nothing that it denies has to be denied by other means."""


@dataclass(frozen=True)
class Kernel:
    """`landlock` is the version of its interface, 0 where it is absent or off."""

    landlock: int
    seccomp: bool

    @property
    def missing(self) -> list[str]:
        """The pieces that it lacks, as people say them."""
        return [name for name, there in (("Landlock", self.landlock > 0), ("seccomp", self.seccomp)) if not there]

    def __str__(self) -> str:
        landlock = f"Landlock {self.landlock}" if self.landlock else "no Landlock"
        return f"{landlock}, {'seccomp' if self.seccomp else 'no seccomp'}"


def examine() -> Kernel:
    """Ask the kernel; changes nothing. On another system than Linux there is nothing."""
    return Kernel(landlockpy.abi_version(), _has_seccomp())


def _has_seccomp() -> bool:
    try:
        seccompy.audit_arch()  # a processor whose system calls nobody has numbered cannot be filtered
        return seccompy.supported()
    except SeccompError:  # a container may forbid to ask
        return False
