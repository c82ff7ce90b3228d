"""The machine under a measurement: what it is, how fast its disk commits, how much memory this process holds."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import sys
import time
from pathlib import Path

from msgspec import Struct

__all__ = ["COMMITS_PER_SAGA", "Machine", "describe", "peak_resident_mib", "raw_commits", "resident_mib"]

#: A clean saga of n steps makes n + 1 commits, and every measurement here has five steps.
COMMITS_PER_SAGA = 6

_MIB = 1024 * 1024
_ROW_CHARS = 200


class Machine(Struct, frozen=True):
    """What a figure depends on; figures of different machines cannot be compared."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    file_system: str
    python: str
    sqlite: str

    def __str__(self) -> str:
        """Give one line for below a table."""
        return (
            f"{self.cores} cores ({self.processor}), {self.memory_gib:.0f} GiB, {self.system}, {self.file_system}, "
            f"Python {self.python}, SQLite {self.sqlite}"
        )


def describe(directory: Path) -> Machine:
    """Describe this machine; `directory` is where the journals are written."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _MIB / 1024,
        system=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])} {platform.machine()}",
        file_system=_file_system(directory),
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        sqlite=sqlite3.sqlite_version,
    )


def _processor() -> str:
    """Give the processor's name where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "processor unknown"


def _file_system(directory: Path) -> str:
    """Give the type of the file system that holds `directory`."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "file system unknown"
    where = directory.resolve()
    found, depth = "unknown", -1
    for line in mounts.read_text().splitlines():
        _, point, kind = line.split()[:3]
        mounted = Path(point)
        if where.is_relative_to(mounted) and len(mounted.parts) > depth:
            found, depth = kind, len(mounted.parts)
    return f"file system {found}"


def raw_commits(directory: Path, seconds: float) -> float:
    """Count one-row SQLite commits a second, WAL and synchronous=FULL, one at a time: the floor of the disk."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS row (n INTEGER, body TEXT)")
    began_at, count = time.perf_counter(), 0
    while time.perf_counter() < began_at + seconds:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO row VALUES (?, ?)", (count, "x" * _ROW_CHARS))
        connection.execute("COMMIT")
        count += 1
    rate = count / (time.perf_counter() - began_at)
    connection.close()
    return rate


def resident_mib() -> float:
    """Give the memory that this process holds now; where the system does not tell, the most it ever held."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return peak_resident_mib()
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MIB


def peak_resident_mib() -> float:
    """Give the most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage, this does not count what the parent held when it forked.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, the BSDs KiB.
    return peak / _MIB if sys.platform == "darwin" else peak / 1024
