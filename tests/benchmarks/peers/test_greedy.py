"""Both get the same rows; what the peer takes is told over ours, and what fails is told too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contract.status import Stage
from benchmarks.peers import environments, greedy
from benchmarks.peers.case import named
from benchmarks.peers.catalogue import Peer
from benchmarks.peers.environments import PeerFailed
from benchmarks.peers.greedy import Times
from tests.benchmarks.small import write_case
from workers.stages import pipeline, plan

PEER = Peer("a-peer", "a_peer", ("fast", "broken"))


def test_times_are_told_over_ours() -> None:
    shown = Times(2.0, {"fast": 5.0, "broken": "RuntimeError: rank 0"}).shown()
    assert shown == ["2.0 s", "5.0 s", "2.5", "RuntimeError: rank 0", "–"]
    assert len(greedy._HEADER) == 3 + len(shown)


def test_both_look_at_the_same_rows_and_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def peer(_peer: Peer, _interpreter: Path, request: Path, _seconds: float) -> None:
        told = json.loads(request.read_text())
        if told["method"] == "broken":
            raise PeerFailed("RuntimeError: rank | 0")
        with np.load(told["calibration"]) as given:
            rows.append(len(given["x"]))
        request.with_name("result.json").write_text(json.dumps({"seconds": 3.5, "calls": [], "remark": ""}))

    def planned(context: Any) -> None:
        rows.append(context.spec.calibration.rows)
        real(context)

    real = plan.run
    monkeypatch.setattr(environments, "run", peer)
    monkeypatch.setitem(pipeline._STAGES, Stage.PLAN, planned)
    [case] = named([write_case(tmp_path / "case", 100)], tmp_path / "state", rows=7)
    times = greedy.measured(case, 0.5, PEER, Path("python"))
    assert rows == [7, 7]
    assert times.theirs == {"fast": 3.5, "broken": "RuntimeError: rank / 0"}
    assert times.ours > 0.0
    assert sorted(path.name for path in (case.scratch / "0.5" / "ours" / "stages").iterdir()) == [
        "decompose",
        "inspect",
        "plan",
    ]
