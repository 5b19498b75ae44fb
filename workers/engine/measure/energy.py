"""The energy that a call takes, read from the processor's own counters; never estimated."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.engine.errors import EngineError
from workers.engine.measure.latency import Runner, repeat, undisturbed

COUNTERS = Path("/sys/class/powercap")
"""Where Linux shows the counters of the processor (RAPL, running average power limit)."""

_TURNS = 4


@dataclass(frozen=True)
class _Zone:
    """One counter: microjoules since some moment, which begin again at 0 after `most`."""

    counter: Path
    most: int

    def read(self) -> int:
        return int(self.counter.read_text())


def per_call(
    runners: Mapping[str, Runner], counters: Path = COUNTERS, *, seconds: float = 1.0
) -> dict[str, float]:
    """Joules per call of every runner, in turns, each called for `seconds` in all.

    Every processor package counts, and memory where it has a counter of its own: all that they took
    meanwhile, idle power and other processes included. `counters` is laid out like Linux's `powercap`.
    Raises `EngineError`: `no_energy_counter`, whose detail is the reason, where there is no counter, or none
    that counts and may be read; `not_runnable` where a runner fails.
    """
    try:
        zones = _zones(counters)
        spent = _spent(runners, seconds / _TURNS, zones)
    except (OSError, ValueError) as error:
        raise _none("The energy counters of this machine may not be read by the worker.") from error
    if not all(spent.values()):
        raise _none("The energy counters of this machine stand still.")
    return spent


def _spent(runners: Mapping[str, Runner], seconds: float, zones: list[_Zone]) -> dict[str, float]:
    joules, calls = dict.fromkeys(runners, 0.0), dict.fromkeys(runners, 0)
    with undisturbed():
        for name, runner in list(runners.items()) * _TURNS:
            before = [zone.read() for zone in zones]
            calls[name] += repeat(name, runner, seconds)
            joules[name] += sum(_joules(zone, start) for zone, start in zip(zones, before, strict=True))
    return {name: joules[name] / calls[name] for name in runners}


def _joules(zone: _Zone, before: int) -> float:
    now = zone.read()
    return (now - before if now >= before else now + zone.most - before) / 1e6


def _zones(counters: Path) -> list[_Zone]:
    """The packages, and the memory that they do not count; other zones are parts of a package, or more of the
    machine."""
    folders = sorted(counters.glob("intel-rapl:*"))  # so called on AMD too
    names = {folder: (folder / "name").read_text().strip() for folder in folders}
    counted = [folder for folder, name in names.items() if name.startswith("package") or name == "dram"]
    if not counted:
        raise _none("This machine shows no energy counter.")
    return [
        _Zone(folder / "energy_uj", int((folder / "max_energy_range_uj").read_text())) for folder in counted
    ]


def _none(reason: str) -> EngineError:
    return EngineError("no_energy_counter", reason)
