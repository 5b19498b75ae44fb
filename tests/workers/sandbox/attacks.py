"""Everything that a job must not be able to do, tried. Needs nothing of ours: it has to run anywhere."""

# ruff: noqa: PTH101, PTH108, PTH115, PTH208, S103, S606 -- the calls themselves are meant, and meant badly

import ctypes
import errno
import mmap
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import seccompy

CALLS = (
    *("bpf", "io_uring_setup", "keyctl", "memfd_create", "mount", "perf_event_open", "personality", "ptrace"),
    *(
        "add_key",
        "chroot",
        "kcmp",
        "mknodat",
        "mq_open",
        "pidfd_open",
        "process_vm_readv",
        "process_vm_writev",
    ),
    *("setns", "setpgid", "setsid", "shmget", "socketpair", "symlinkat", "linkat", "unshare", "userfaultfd"),
    *(
        "clone3",
        "execve",
        "execveat",
        "fchmodat",
        "fchownat",
        "init_module",
        "kexec_load",
        "reboot",
        "swapon",
    ),
)
"""System calls that no argument makes harmless enough."""


def attempt(targets: Mapping[str, Any]) -> dict[str, str]:
    """Try every attack on the targets that the test has laid out; by name "done", or the error's name."""
    return {name: _outcome(attack, targets) for name, attack in ATTACKS.items()}


def _outcome(attack: Callable[[Mapping[str, Any]], object], targets: Mapping[str, Any]) -> str:
    try:
        attack(targets)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def _read(path: str) -> None:
    Path(path).read_bytes()


def _write(path: str) -> None:
    Path(path).write_text("changed")


def _connect(family: int, address: Any) -> None:
    with socket.socket(family) as client:
        client.connect(address)


def _start_a_program(_targets: Mapping[str, Any]) -> None:
    subprocess.run(["/bin/true"], check=True)


def _become_a_program(_targets: Mapping[str, Any]) -> None:
    try:
        child = os.fork()
    except OSError:
        child = 0  # in place: if that is not refused either, no answer is ever given
    if child == 0:
        os.execv("/bin/true", ["true"])
    os.waitpid(child, 0)


def _fork(_targets: Mapping[str, Any]) -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _trace(targets: Mapping[str, Any]) -> None:
    call("ptrace", 16, targets["victim"], 0, 0)  # PTRACE_ATTACH
    os.waitpid(targets["victim"], 0)
    call("ptrace", 17, targets["victim"], 0, 0)  # PTRACE_DETACH


def _escape_by_link(targets: Mapping[str, Any]) -> None:
    link = Path("a link")
    link.symlink_to(targets["secret"])
    try:
        link.read_bytes()
    finally:
        link.unlink()


def _escape_by_hard_link(targets: Mapping[str, Any]) -> None:
    link = Path("another link")
    link.hardlink_to(targets["secret"])
    link.unlink()


def _bring_in(targets: Mapping[str, Any]) -> None:
    Path(targets["folder"], "movable").rename("brought in")
    Path("brought in").rename(Path(targets["folder"], "movable"))


def _share_memory(_targets: Mapping[str, Any]) -> None:
    shared = Path(f"/dev/shm/rankfold-{os.getpid()}")  # noqa: S108
    shared.write_text("")
    shared.unlink()


def _own_signals(targets: Mapping[str, Any]) -> None:
    """A signal to a stranger by way of a pipe that has news."""
    reading, writing = os.pipe()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.fcntl(reading, 8, ctypes.c_int(targets["victim"])) != 0:  # F_SETOWN
            raise OSError(ctypes.get_errno(), "fcntl")
    finally:
        os.close(reading)
        os.close(writing)


def _type(_targets: Mapping[str, Any]) -> None:
    if ctypes.CDLL(None, use_errno=True).ioctl(0, 0x5412, b"x") != 0:  # TIOCSTI
        raise OSError(ctypes.get_errno(), "ioctl")


def _limit_the_parent(targets: Mapping[str, Any]) -> None:
    limits = (ctypes.c_uint64 * 2)()
    call("prlimit64", targets["parent"], 7, None, ctypes.byref(limits))


def _go_on_without_the_parent(_targets: Mapping[str, Any]) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(1, 0, 0, 0, 0) != 0:  # PR_SET_PDEATHSIG
        raise OSError(ctypes.get_errno(), "prctl")


def _x32(_targets: Mapping[str, Any]) -> None:
    """getpid as a program of the 32-bit interface for 64-bit processors would call it."""
    number = 39 | 1 << 30
    if ctypes.CDLL(None, use_errno=True).syscall(number) == -1:
        raise OSError(ctypes.get_errno(), "x32")


ATTACKS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "read a file": lambda targets: _read(targets["secret"]),
    "read through the scratch folder": lambda targets: _read(f"../../../../../../../..{targets['secret']}"),
    "list a folder": lambda targets: list(Path(targets["folder"]).iterdir()),
    "write a file": lambda targets: _write(targets["canary"]),
    "truncate a file": lambda targets: os.truncate(targets["canary"], 0),
    "make a file": lambda targets: _write(f"{targets['folder']}/made"),
    "delete a file": lambda targets: os.unlink(targets["deletable"]),
    "change a mode": lambda targets: os.chmod(targets["canary"], 0o777),
    "change a time": lambda targets: os.utime(targets["canary"]),
    "move a file in": _bring_in,
    "link out": _escape_by_link,
    "link out, hard": _escape_by_hard_link,
    "make a pipe": lambda _: os.mkfifo("a pipe"),
    "share memory": _share_memory,
    "read the parent's environment": lambda targets: _read(f"/proc/{targets['parent']}/environ"),
    "read the parent's command": lambda targets: _read(f"/proc/{targets['parent']}/cmdline"),
    "read the parent's folder": lambda targets: os.listdir(f"/proc/{targets['parent']}/cwd/"),
    "open the parent's memory": lambda targets: os.open(f"/proc/{targets['parent']}/mem", os.O_RDWR),
    "list processes": lambda _: os.listdir("/proc"),
    "connect to a port": lambda targets: _connect(socket.AF_INET, ("127.0.0.1", targets["port"])),
    "connect to a socket": lambda targets: _connect(socket.AF_UNIX, targets["socket"]),
    "connect to an abstract socket": lambda targets: _connect(socket.AF_UNIX, targets["abstract"]),
    "send a datagram": lambda _: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    "start a program": _start_a_program,
    "become a program": _become_a_program,
    "fork": _fork,
    "trace": _trace,
    "signal the parent": lambda targets: os.kill(targets["parent"], 0),
    "kill": lambda targets: os.kill(targets["prey"], signal.SIGKILL),
    "signal everybody": lambda _: os.kill(-1, 0),
    "own signals": _own_signals,
    "slow the parent": lambda targets: os.setpriority(os.PRIO_PROCESS, targets["victim"], 19),
    "limit the parent": _limit_the_parent,
    "go on without the parent": _go_on_without_the_parent,
}
"""What works outside of the sandbox, and must not inside."""


def call(name: str, *arguments: Any) -> int:
    """A system call by its number; raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(seccompy.syscall_nr(name), *arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def call_them_all() -> dict[str, str]:
    """What becomes of calls that need no targets."""
    attempts: dict[str, Callable[[Mapping[str, Any]], object]] = {
        name: lambda targets: call(targets["name"], 0, 0, 0, 0, 0, 0) for name in CALLS
    }
    attempts |= {"x32": _x32, "TIOCSTI": _type}
    return {name: _outcome(attack, {"name": name}) for name, attack in attempts.items()}


def good() -> dict[str, bool]:
    """What a job has to be able to do, all the same."""
    Path("folder").mkdir()
    Path("folder/file").write_text("mine")
    Path("folder/file").rename("moved")
    threads = [threading.Thread(target=sum, args=(range(1000),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with mmap.mmap(-1, 1 << 20) as memory:
        memory[0] = 1
    from zoneinfo import ZoneInfo  # noqa: PLC0415 -- a module nobody has imported

    return {
        "files": Path("moved").read_text() == "mine" and os.listdir("folder") == [],
        "threads": not any(thread.is_alive() for thread in threads),
        "modules": ZoneInfo("UTC").key == "UTC",
        "itself": "VmRSS" in Path("/proc/self/status").read_text(),
    }


def descriptors() -> dict[int, str]:
    """What this process has open."""
    return {
        int(entry.name): os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()
    }
