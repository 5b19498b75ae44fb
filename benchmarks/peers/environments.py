"""An environment for each peer, made when it is first needed, and processes in it."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.catalogue import Peer

ROOT = Path(__file__).parents[2]
_TORCH = "torch==2.13.0"


class PeerFailed(Exception):
    """A peer's process ended badly; says how in one phrase."""


def python(peer: Peer, folder: Path) -> Path:
    """The interpreter of the peer's environment, `folder`/<module>.

    torch brings what it needs. Everything else is pinned and comes without its dependencies: some peers name
    packages that would replace torch, or that only their plots use.
    """
    home = folder / peer.module
    interpreter, pinned = home / "bin" / "python", ROOT / "requirements" / "peers" / f"{peer.module}.txt"
    done = home / ".installed"
    if not done.exists() or done.read_text() != pinned.read_text():
        print(f"making the environment of {peer.package}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [str(interpreter), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "--constraint", str(pinned), _TORCH], check=True)
        subprocess.run([*install, "--no-deps", "--requirement", str(pinned)], check=True)
        done.write_text(pinned.read_text())
    return interpreter


def run(peer: Peer, interpreter: Path, request: Path, seconds: float) -> None:
    """Run the peer's adapter on `request`, in the request's folder, on one thread.

    Raises `PeerFailed` where it does not end well within `seconds`.
    """
    adapter = f"benchmarks.peers.adapters.{peer.module}"
    command = [str(interpreter), "-W", "ignore", "-m", adapter, str(request)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with (request.parent / "output.txt").open("w+") as output:
        try:
            ended = subprocess.run(
                command,
                cwd=request.parent,
                env={**os.environ, **threads, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise PeerFailed(f"not done after {seconds:.0f} s") from expired
        if ended.returncode:
            output.seek(0)
            raise PeerFailed(last_line(output.read()) or f"exit status {ended.returncode}")


def last_line(output: str) -> str:
    """What a traceback ends with, short enough for a table."""
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip()[:120] if lines else ""
