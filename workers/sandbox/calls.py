"""Which system calls a job's process may make, by seccomp: those that computing takes.

A list of what is allowed: what is not on it is refused, calls that kernels have yet to invent included.
Refused means an error, which libraries take for an answer: they look for sockets, users and programs that
they can do without. It is EPERM, or ENOSYS for what is younger than Linux 5.1: for such calls libraries have
replacements. A call of another architecture kills the process: nothing of ours makes one.
"""

import errno
import os

from seccompy import Action, ArgCmp, CmpOp, Filter, syscall_nr

_INT = 0xFFFF_FFFF  # of an argument that the kernel takes for an int, it ignores the rest

MEMORY = """brk madvise membarrier mincore mmap mprotect mremap msync munmap get_mempolicy mbind
    set_mempolicy"""
FILES = """access chdir close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fallocate fchdir fdatasync flock fstat fstatfs fsync ftruncate getcwd getdents getdents64 lseek lstat
    mkdir mkdirat newfstatat open openat openat2 pread64 preadv pwrite64 pwritev read readahead readlink
    readlinkat readv rename renameat renameat2 rmdir sendfile splice stat statfs statx sync_file_range umask
    unlink unlinkat write writev"""
WAITING = """epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd eventfd2 pipe pipe2 poll
    ppoll pselect6 select"""
THREADS = """arch_prctl exit exit_group futex futex_waitv get_robust_list gettid rseq sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_yield
    set_robust_list set_tid_address"""
SIGNALS = """alarm pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
    rt_sigsuspend rt_sigtimedwait sigaltstack"""
CLOCKS = """clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
    timerfd_settime times"""
KNOWING = """capget getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority
    getrandom getresgid getresuid getrlimit getrusage getsid getuid sysinfo uname"""
FORKING = "capset landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp wait4 waitid"

_TAKING_SIGNALS = {8, 10, 15}  # F_SETOWN, F_SETSIG, F_SETOWN_EX: they send a signal of choice to anybody
_TYPING = {0x5412, 0x541C}  # TIOCSTI, TIOCLINUX: they type into a terminal
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ, PR_SET_TIMERSLACK,
# PR_GET_TIMERSLACK, PR_GET_NO_NEW_PRIVS, PR_SET_VMA
_PRCTL = (3, 15, 16, 21, 23, 29, 30, 39, 0x53564D41)
_PRCTL_FORKING = (1, 38)  # PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS
_YOUNG = 424  # the first number that all architectures share; clone3 is among them, whose flags none can see
_CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020080  # every CLONE_NEW…: a namespace of one's own


def confine(*, forks: bool) -> None:
    """From here on this thread, and what it starts, can make no other calls; raises `OSError`.

    A process that `forks` may start processes like itself, which can confine themselves further, and end
    them; otherwise there are only threads. Nobody can start a program.
    """
    calls = Filter(default=Action.ERRNO | errno.ENOSYS)
    for name in allowed(forks):
        calls.allow(name)
    _add_signals_and_processes(calls, forks)
    for number in _TAKING_SIGNALS:
        calls.errno("fcntl", errno.EPERM, args=[_is(1, number)])
    for number in _TYPING:
        calls.errno("ioctl", errno.EPERM, args=[_is(1, number)])
    for name in ("fcntl", "ioctl"):
        calls.allow(name)
    for number in (*_PRCTL, *(_PRCTL_FORKING if forks else ())):
        calls.allow("prctl", args=[_is(0, number)])
    for number in range(_YOUNG):  # first come, first served: what has been allowed stays so
        calls.errno(number, errno.EPERM)
    calls.load()


def allowed(forks: bool) -> list[str]:
    """The calls that are allowed whatever their arguments, as far as this processor's kernel has them."""
    groups = (MEMORY, FILES, WAITING, THREADS, SIGNALS, CLOCKS, KNOWING, FORKING if forks else "")
    return [name for name in " ".join(groups).split() if _is_known(name)]


def _add_signals_and_processes(calls: Filter, forks: bool) -> None:
    own = os.getpid()
    if forks:
        calls.allow("clone", args=[_masked(0, 0, _CLONE_NEW)])
        calls.allow("kill")  # its children, whose numbers nobody knows yet; Landlock knows whom it may
    else:
        calls.allow("clone", args=[_masked(0, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NEW)])
        calls.allow("kill", args=[_is(0, own)])
    calls.allow("tgkill", args=[_is(0, own)])
    for pid in (0, own):  # 0 is the caller
        calls.allow("prlimit64", args=[_is(0, pid)])
        calls.allow("sched_setaffinity", args=[_is(0, pid)])
    # Whose else a number is, nobody can tell. Without an effect and without an error: ONNX Runtime prints one
    # for every thread that it cannot bind to a processor.
    calls.errno("sched_setaffinity", 0)
    calls.allow("setrlimit")


def _is(index: int, value: int) -> ArgCmp:
    return _masked(index, value, _INT)


def _masked(index: int, value: int, mask: int) -> ArgCmp:
    return ArgCmp(index, CmpOp.MASKED_EQ, value, mask)


def _is_known(name: str) -> bool:
    """Whether this processor's kernel has the call: the older ones have successors elsewhere."""
    try:
        syscall_nr(name)
    except ValueError:
        return False
    return True
