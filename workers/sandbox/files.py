"""Which files a job's process may open, by Landlock: its folder, and what its libraries read."""

import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from landlockpy import AccessFS, Ruleset, Scope

READ = AccessFS.READ_FILE | AccessFS.READ_DIR
USE = READ | AccessFS.WRITE_FILE | AccessFS.IOCTL_DEV
# No links, sockets, pipes or devices: only what the worker may take for what it is.
OWN = (
    (READ | AccessFS.WRITE_FILE | AccessFS.TRUNCATE | AccessFS.REFER)
    | (AccessFS.MAKE_DIR | AccessFS.MAKE_REG)
    | (AccessFS.REMOVE_DIR | AccessFS.REMOVE_FILE)
)
_ONE_FILE = AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.TRUNCATE | AccessFS.IOCTL_DEV

_PACKAGES = Path(__file__).parents[1]
_SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store"),
    "/etc/ld.so.cache",
    *("/etc/localtime", "/usr/share/zoneinfo"),
    *("/dev/random", "/dev/urandom", "/dev/zero"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),
    *("/sys/class/powercap", "/sys/devices/virtual/powercap"),
)
_CUDA_READS = (
    *("/proc/devices", "/proc/modules", "/proc/driver/nvidia", "/proc/sys/vm/mmap_min_addr"),
    *("/sys/bus/pci", "/sys/devices", "/sys/module/nvidia", "/sys/class/drm"),
    *("/usr/local/cuda", "/usr/share/nvidia", "/etc/nvidia"),
)
_CUDA_USES = "/dev/nvidia*"

_self: list[int] = []


def confine(scratch: Path, *, gpu: bool, forks: bool) -> None:
    """Nothing but `scratch` can be changed, and little else opened, by this thread and what it starts.

    Nor can anything be connected to, as far as the kernel knows how to deny it. A process that `forks` can
    signal what it forked alone, and sees the numbers of all processes (Landlock denies what they hold):
    a rule for its own would not hold for its children. Raises `OSError`.
    """
    # Whose signals are scoped cannot send the one by which its own death ends others: only the process that
    # must be able to signal (its forks, which are within its scope) has to be kept from strangers by it.
    scope = Scope.ABSTRACT_UNIX_SOCKET | (Scope.SIGNAL if forks else Scope.NONE)
    with Ruleset(scoped=scope) as rules:
        _allow(rules, [scratch], OWN)
        _allow(rules, [Path("/proc") if forks else _own_entry()], READ | AccessFS.WRITE_FILE)
        _allow(rules, [Path("/dev/null")], USE)
        _allow(rules, readable(), READ)
        if gpu:
            _allow(rules, map(Path, _CUDA_READS), READ)
            _allow(rules, Path("/").glob(_CUDA_USES.lstrip("/")), USE)
        rules.restrict()


def readable() -> list[Path]:
    """Where Python, its packages, this package's sources and the system's libraries are."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    libraries = [Path(prefix) / name for prefix in sorted(prefixes) for name in ("lib", "lib64")]
    packages = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    linked = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    ours = [_PACKAGES, _PACKAGES.with_name("app")]
    return [*libraries, *map(Path, (*packages, *linked, *_SYSTEM)), *ours]


def _own_entry() -> Path:
    """This process's folder in /proc, held open: a rule is about a file that the kernel remembers, and this
    one it may forget and make anew."""
    _self.append(os.open("/proc/self", os.O_PATH | os.O_CLOEXEC))
    return Path("/proc/self")


def _allow(rules: Ruleset, paths: Iterable[Path], access: AccessFS) -> None:
    for path in paths:
        if path.exists():
            rules.allow_path(path, access if path.is_dir() else access & _ONE_FILE)
