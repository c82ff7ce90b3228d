"""The raw floor, as sagas: one-row SQLite commits, one at a time, six of which are a five-step saga."""

from pathlib import Path

from benchmarks.machine import COMMITS_PER_SAGA, raw_commits
from benchmarks.peers.programs.order import read_order, tell

if __name__ == "__main__":
    tell(raw_commits(Path.cwd(), read_order().seconds) / COMMITS_PER_SAGA)
