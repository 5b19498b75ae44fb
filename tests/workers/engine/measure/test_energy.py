"""Energy read from counters; they are files, so that a test can turn them."""

from pathlib import Path

import pytest

from workers.engine.errors import EngineError
from workers.engine.measure import energy
from workers.engine.measure.latency import Runner

RANGE = 1_000_000


def zone(folder: Path, name: str, microjoules: int = 0) -> Path:
    """A counter as Linux shows it; `folder` says which zone it is, `name` what it counts."""
    folder.mkdir(parents=True)
    for file, text in {"name": name, "energy_uj": microjoules, "max_energy_range_uj": RANGE}.items():
        (folder / file).write_text(f"{text}\n")
    return folder / "energy_uj"


def spends(*zones: Path, microjoules: int) -> Runner:
    """A call that turns the counters on by so much, each."""

    def call() -> None:
        for counter in zones:
            counter.write_text(f"{(int(counter.read_text()) + microjoules) % RANGE}\n")

    return Runner(call, 1, 1)


def test_every_call_is_charged_with_what_the_counters_saw(tmp_path: Path) -> None:
    package = zone(tmp_path / "intel-rapl:0", "package-0")
    runners = {"large": spends(package, microjoules=2000), "small": spends(package, microjoules=500)}
    spent = energy.per_call(runners, tmp_path, seconds=0)
    assert spent == {"large": pytest.approx(0.002), "small": pytest.approx(0.0005)}


def test_packages_and_memory_add_up_and_what_they_contain_or_are_in_does_not(tmp_path: Path) -> None:
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:1": "package-1",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    zones = [zone(tmp_path / folder, name) for folder, name in names.items()]
    spent = energy.per_call({"a": spends(*zones, microjoules=1000)}, tmp_path, seconds=0)
    assert spent == {"a": pytest.approx(0.003)}


def test_a_counter_that_begins_again_is_followed(tmp_path: Path) -> None:
    package = zone(tmp_path / "intel-rapl:0", "package-0", RANGE - 1500)
    assert energy.per_call({"a": spends(package, microjoules=1000)}, tmp_path, seconds=0) == {
        "a": pytest.approx(0.001)
    }


def _reason(counters: Path) -> str:
    with pytest.raises(EngineError) as caught:
        energy.per_call({"a": Runner(lambda: None, 1, 1)}, counters, seconds=0)
    assert caught.value.code == "no_energy_counter"
    return caught.value.detail


def test_without_a_counter_there_is_a_reason_and_no_number(tmp_path: Path) -> None:
    assert _reason(tmp_path / "absent") == "This machine shows no energy counter."
    zone(tmp_path / "intel-rapl:0", "core")
    assert _reason(tmp_path) == "This machine shows no energy counter."


def test_a_counter_that_stands_still_or_may_not_be_read_is_a_reason_too(tmp_path: Path) -> None:
    counter = zone(tmp_path / "intel-rapl:0", "package-0", 7)
    assert _reason(tmp_path) == "The energy counters of this machine stand still."
    counter.unlink()
    counter.mkdir()  # whoever runs the tests may be allowed to read everything that is a file
    assert _reason(tmp_path) == "The energy counters of this machine may not be read by the worker."


@pytest.mark.skipif(energy.COUNTERS.exists(), reason="this machine has a powercap folder")
def test_a_machine_without_powercap_says_so() -> None:
    assert _reason(energy.COUNTERS) == "This machine shows no energy counter."
