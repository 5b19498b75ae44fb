"""The list of system calls, on the processors that it is for."""

import pytest
from seccompy import syscalls

from workers.sandbox import calls
from workers.sandbox.calls import allowed

DANGEROUS = {
    *("socket", "connect", "bind", "sendto", "sendmsg", "socketpair", "execve", "execveat", "fork", "vfork"),
    *("clone", "clone3", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd"),
    *("kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_send_signal", "mount", "umount2", "move_mount"),
    *("bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "io_uring_setup"),
    *(
        "io_uring_enter",
        "unshare",
        "setns",
        "chroot",
        "pivot_root",
        "setuid",
        "setresuid",
        "setsid",
        "setpgid",
    ),
    *("chmod", "fchmodat", "chown", "fchownat", "setxattr", "utimensat", "truncate", "symlink", "symlinkat"),
    *("link", "linkat", "mknod", "mknodat", "memfd_create", "shmget", "msgget", "semget", "mq_open"),
    *("setpriority", "sched_setscheduler", "init_module", "kexec_load", "reboot", "open_by_handle_at"),
    *(
        "prctl",
        "ioctl",
        "fcntl",
        "prlimit64",
        "sched_setaffinity",
        "seccomp",
        "modify_ldt",
        "name_to_handle_at",
    ),
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_nothing_dangerous_is_allowed_whatever_its_arguments(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert not set(allowed(forks=False)) & DANGEROUS
    assert set(allowed(forks=True)) - set(allowed(forks=False)) == set(calls.FORKING.split())


@pytest.mark.parametrize(
    ("machine", "numbers"),
    [
        ("x86_64", {"read": 0, "openat": 257, "newfstatat": 262, "futex": 202, "seccomp": 317, "clone": 56}),
        ("aarch64", {"read": 63, "openat": 56, "newfstatat": 79, "futex": 98, "seccomp": 277, "clone": 220}),
    ],
)
def test_the_library_numbers_calls_as_the_kernel_does(
    machine: str, numbers: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert {name: syscalls.syscall_nr(name) for name in numbers} == numbers


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_computing_takes_is_known_on_both(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    needed = {
        "openat",
        "newfstatat",
        "lseek",
        "ftruncate",
        "mmap",
        "futex",
        "renameat2",
        "unlinkat",
        "mkdirat",
    }
    needed |= {
        "pread64",
        "getdents64",
        "clock_nanosleep",
        "rseq",
        "ppoll",
        "faccessat",
        "statfs",
        "exit_group",
    }
    assert needed <= set(allowed(forks=False))
