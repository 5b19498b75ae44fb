"""Whether hostile files do something where they are let: else the corpus would prove nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.hostile import pt2
from tests.acceptance.hostile.trap import Trap, laid_out
from tests.processes import wait_until

EVERYTHING = {"file", "connection", "process"}
# Where torch's own reader runs what a file says, in the release that is installed.
RUN_BY_TORCH = {"poison_expressions", "pickled_sample_inputs"}
_LOAD = "import sys, torch; torch.export.load(sys.argv[1])"


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    with laid_out(tmp_path) as trap:
        yield trap


def run(*arguments: str) -> None:
    """Not with pipes: the process that is started would keep them open."""
    command = [sys.executable, *arguments]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240)


def test_an_expression_that_is_evaluated_springs(trap: Trap) -> None:
    assert trap.sprung() == set()
    run("-c", f"eval({trap.expression!r})")
    wait_until(lambda: trap.sprung() == EVERYTHING, what="all effects")
    trap.reset()
    assert trap.sprung() == set()


def test_a_pickle_that_is_loaded_springs(trap: Trap, tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(trap.pickled)
    run("-c", "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))", str(tmp_path / "pickle"))
    wait_until(lambda: trap.sprung() == EVERYTHING, what="all effects")


def test_a_library_that_is_loaded_springs(trap: Trap, tmp_path: Path) -> None:
    (tmp_path / "trap.so").write_bytes(trap.library())
    if (tmp_path / "trap.so").stat().st_size < 1000:
        pytest.skip("there is no compiler")
    run("-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(tmp_path / "trap.so"))
    assert "file" in trap.sprung()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RUN_BY_TORCH))
def test_torchs_own_reader_runs_what_ours_does_not(name: str, trap: Trap, tmp_path: Path) -> None:
    [vector] = [each for each in pt2.CORPUS.vectors if each.name == f"pt2: {name}"]
    (tmp_path / "model.pt2").write_bytes(vector.build(trap))
    run("-c", _LOAD, str(tmp_path / "model.pt2"))
    wait_until(lambda: trap.sprung() == EVERYTHING, what="all effects")
