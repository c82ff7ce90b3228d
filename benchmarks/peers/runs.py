"""One run of one peer: its program, in its environment, in a process of its own, for a bounded time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.child import ChildFailed, run_child
from benchmarks.peers.environments import NotInstallable, environment_of
from benchmarks.peers.roster import Peer

__all__ = ["Found", "RunFailed", "run_peer"]

#: What a program may take beside its measurement: to start, to check itself, and to end what it began.
_BESIDE_S = 60


class Found(Struct, frozen=True):
    """What a program told."""

    sagas_a_second: float
    version: str
    python: str


class RunFailed(Exception):
    """There is no figure; the message says why."""


def run_peer(peer: Peer, at_once: int, seconds: float, venvs: Path) -> Found:
    """Measure the peer once.

    Raises:
        RunFailed: it cannot be installed, failed, or took too long.
    """
    order = ["--case", peer.case, "--at-once", str(at_once), "--seconds", str(seconds)]
    try:
        python = environment_of(peer, venvs)
        with tempfile.TemporaryDirectory() as directory:
            told = run_child(
                f"benchmarks.peers.programs.{peer.program}",
                *order,
                python=python,
                directory=Path(directory),
                limit_s=seconds + _BESIDE_S,
            )
    except (NotInstallable, ChildFailed) as reason:
        raise RunFailed(str(reason)) from reason
    return msgspec.json.decode(told, type=Found)
