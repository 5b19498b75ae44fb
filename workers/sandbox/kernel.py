"""What this machine's kernel has to confine a process with."""

from dataclasses import dataclass

import landlockpy
import seccompy
from seccompy import SeccompError


@dataclass(frozen=True)
class Kernel:
    """`landlock` is the version of its interface, 0 where it is absent or off."""

    landlock: int
    seccomp: bool

    @property
    def missing(self) -> list[str]:
        """The pieces that it lacks."""
        pieces = {"Landlock": self.landlock > 0, "seccomp": self.seccomp}
        return [name for name, there in pieces.items() if not there]

    def __str__(self) -> str:
        landlock = f"Landlock {self.landlock}" if self.landlock else "no Landlock"
        return f"{landlock}, {'seccomp' if self.seccomp else 'no seccomp'}"


def examine() -> Kernel:
    """Ask the kernel; changes nothing. On another system than Linux there is nothing."""
    return Kernel(landlockpy.abi_version(), _has_seccomp())


def refusal(kernel: Kernel) -> str:
    """Why no worker starts on such a kernel where the sandbox is required, and the ways out."""
    return (
        f"jobs cannot be confined on this machine, which lacks {' and '.join(kernel.missing)}: "
        "use a Linux that has both (docs/sandbox.md), or set RANKFOLD_SANDBOX=auto to do with what there is"
    )


def _has_seccomp() -> bool:
    try:
        seccompy.audit_arch()  # a processor whose system calls nobody has numbered cannot be filtered
        return seccompy.supported()
    except SeccompError:  # a container may forbid to ask
        return False
