"""`make demo`: start the service, compress the example through its public API, show before and after."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
DATA = Path("var/demo")
RANKFOLD = str(Path(sys.executable).with_name("rankfold"))
READY_SECONDS = 60
STOP_SECONDS = 30


def main() -> int:
    """Run the demonstration; 0 if a smaller network came out."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RANKFOLD_")}
    environment |= {"RANKFOLD_DATA_DIR": str(DATA), "RANKFOLD_PORT": url.rsplit(":", 1)[1]}
    DATA.mkdir(parents=True, exist_ok=True)
    artifacts = DATA / "artifacts"
    with service(url, environment):
        print(
            f"The service runs at {url}. Half of the example's multiply-accumulates shall go.\n", flush=True
        )
        command = [
            RANKFOLD, "compress", str(HERE / "model.pt2"),
            "--train", str(HERE / "train.npz"), "--test", str(HERE / "test.npz"),
            "--keep", "0.5", "--of", "macs", "--epochs", "2", "--layers", "--out", str(artifacts),
        ]  # fmt: skip
        status = subprocess.run(command, check=False, env=environment).returncode
    if status == 0:
        print(f"\nThe compressed network is in {artifacts}/. `make serve` starts the service for your own.")
    return status


@contextmanager
def service(url: str, environment: dict[str, str]) -> Iterator[None]:
    """`rankfold serve` from the moment it is ready until the block ends; exits with its log if it fails."""
    log = DATA / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [RANKFOLD, "serve"], env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        if not ready(url, process):
            sys.exit(f"The service did not start. Its log, {log}:\n{log.read_text()[-4000:]}")
        yield
    finally:
        stop(process)


def ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether the service said in time that it is ready."""
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).is_success:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the service as Ctrl-C does, and by force if it does not heed that."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
