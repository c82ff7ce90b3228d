"""A process with a cached function on a journal: asks when it is told to, and tells what it got and how often it asked.

Run as `cache_child.py JOURNAL_URL FILE`: the cached function reads the file. Each line on its standard input is a
command: `ask`, or `invalidate`; each is answered by one line.
"""

from __future__ import annotations

import sys

import anyio

from saga_engine.extensions.cached import cached, cached_function_of
from saga_engine.extensions.invalidations import feed_of
from saga_engine.journals import open_journal

reads = 0


@cached()
async def content_of(path: str) -> str:
    """Give what the file holds now."""
    global reads  # noqa: PLW0603 - this process is about nothing else
    reads += 1
    return await anyio.Path(path).read_text(encoding="utf-8")


async def obey(command: str, path: str) -> str:
    """Carry out one command; give the answer."""
    if command == "invalidate":
        await cached_function_of(content_of).invalidate((path,))
        return "done"
    return f"{await content_of(path)} {reads}"


def main() -> None:
    """Obey until the standard input ends."""
    journal = open_journal(sys.argv[1])
    cached_function_of(content_of).register(feed_of(journal))
    for line in sys.stdin:
        sys.stdout.write(f"{anyio.run(obey, line.strip(), sys.argv[2])}\n")
        sys.stdout.flush()
    journal.close()


if __name__ == "__main__":
    main()
