"""The purchase example as a story: an order that survives a kill, and an order that is undone."""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from rich import box
from rich.console import Console
from rich.table import Table

from examples.purchase import server
from transactions import SagaError

__all__ = ["main", "serve", "tell"]

_TARGET = "examples.purchase:PurchaseSaga"
_FILES = ("server.db", "saga.db", "saga.db-wal", "saga.db-shm", "order-1.json", "order-2.json")
_WAIT_S = 60.0


class StoryBroken(SagaError):
    """The example did not show what it promises."""


@dataclass(frozen=True)
class Story:
    """Where one telling happens.

    Args:
        url: the address of the other side.
        folder: holds the journal, the orders and the other side's state.
        console: where it is told.
    """

    url: str
    folder: Path
    console: Console

    @property
    def journal_url(self) -> str:
        """The journal's address."""
        return f"sqlite:///{self.folder / 'saga.db'}"

    def say(self, text: str) -> None:
        """Tell something, set off from what the commands print."""
        self.console.print(f"\n{text}", style="bold", highlight=False, soft_wrap=True)

    def command(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a `saga` command as a process of its own, and show what one would type."""
        typed = " ".join(["saga", *arguments, "--journal", self.journal_url])
        self.console.print(f"\n$ {typed}", style="cyan", highlight=False, soft_wrap=True)
        command = [sys.executable, "-m", "saga_engine", *arguments, "--journal", self.journal_url]
        services = {"VENDOR_URL": f"{self.url}/vendor", "CONNECT_API_URL": f"{self.url}/public/v1"}
        return subprocess.Popen(command, env={**os.environ, **services})

    def finish(self, *arguments: str) -> None:
        """Run a `saga` command to its end."""
        with self.command(*arguments) as process:
            try:
                process.wait(_WAIT_S)
            except subprocess.TimeoutExpired as e:
                process.kill()
                raise StoryBroken(f"saga {arguments[0]} takes more than {_WAIT_S:g} seconds") from e

    def order(self, number: int) -> str:
        """Let Connect have one more order; give the file that holds it."""
        order = _order(number)
        path = self.folder / f"order-{number}.json"
        path.write_text(json.dumps(order, indent=2), encoding="utf-8")
        headers = {"Authorization": "ApiKey SU-000-000-000:purchase-example"}
        answer = requests.post(f"{self.url}/public/v1/requests", json=order, headers=headers, timeout=5)
        answer.raise_for_status()
        return str(path)

    def fault(self, operation: str, **fault: Any) -> None:
        """Let the next call of the operation go wrong."""
        requests.put(f"{self.url}/faults/{operation}", json=fault, timeout=5).raise_for_status()

    def ledger(self) -> list[dict[str, Any]]:
        """Ask the other side what was done to it."""
        entries: list[dict[str, Any]] = requests.get(f"{self.url}/ledger", timeout=5).json()
        return entries

    def show_ledger(self, entries: list[dict[str, Any]]) -> None:
        """Print effects and undos, one per line; the beginning of a key tells it from the others."""
        self.console.print("The ledger of the other side, which wrote down what was really done:")
        table = Table("change", "what", "id", "key", box=box.SIMPLE)
        for entry in entries:
            table.add_row(entry["change"], entry["step"], entry["object_id"], entry["key"][:8])
        self.console.print(table)


def _tell_of_the_kill(story: Story) -> None:
    order = story.order(1)
    story.say("1. An order arrives, and the process that carries it out is killed.")
    story.fault("create_subscription", kind="timeout_after_work", delay_s=_WAIT_S)
    with story.command("run", _TARGET, order) as process:
        _wait_for_effect(story, "subscription", process)
        process.kill()
    story.say("Killed (SIGKILL): the vendor has made the subscription, and the process never got the answer.")
    story.show_ledger(story.ledger())
    story.say("A new process goes on from the journal.")
    story.finish("recover")
    story.finish("show", _saga_id(1))
    story.show_ledger(story.ledger())
    _expect(story.ledger(), ["effect customer", "effect subscription", "effect parameters", "effect approval"])
    story.say("Every effect is there once: nothing was lost, nothing was bought twice.")


def _tell_of_the_undo(story: Story) -> None:
    before = len(story.ledger())
    order = story.order(2)
    story.say("2. Another order arrives, and Connect refuses to approve it at the very end.")
    story.fault("approve_request", kind="refuse", reason="the contract has ended")
    story.finish("run", _TARGET, order)
    story.finish("show", _saga_id(2))
    entries = story.ledger()[before:]
    story.show_ledger(entries)
    effects = ["customer", "subscription", "parameters"]
    _expect(entries, [*(f"effect {name}" for name in effects), *(f"undo {name}" for name in reversed(effects))])
    story.say("Everything was undone, in reverse: nothing is left of this order.")


def _wait_for_effect(story: Story, step: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not any(entry["step"] == step for entry in story.ledger()):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise StoryBroken(f"the {step} was never made; look at what the command printed")
        time.sleep(0.02)


def _expect(entries: list[dict[str, Any]], expected: list[str]) -> None:
    found = [f"{entry['change']} {entry['step']}" for entry in entries]
    if found != expected:
        raise StoryBroken(f"the ledger should say {expected}, but it says {found}")


def _order(number: int) -> dict[str, Any]:
    """Make an order like `request.json` with ids of its own."""
    order: dict[str, Any] = copy.deepcopy(json.loads(server.REQUEST_FILE.read_text(encoding="utf-8")))
    order["asset"]["id"] = f"AS-0000-0000-{number:04}"
    order["id"] = f"PR-0000-0000-{number:04}-001"
    return order


def _saga_id(number: int) -> str:
    return f"PurchaseSaga:{_order(number)['id']}"


@contextmanager
def _other_side(folder: Path) -> Iterator[str]:
    """Run the server as a child process that ends with this one; give its address."""
    command = [sys.executable, "-m", "examples.purchase.server", "--port", "0", "--until-eof"]
    command += ["--state", str(folder / "server.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise StoryBroken("the server did not start; look at what it printed")
        try:
            yield url
        finally:
            process.stdin.close()


def tell(folder: Path, console: Console) -> None:
    """Tell the whole story.

    Args:
        folder: for the journal and the server's state; files of an earlier telling are removed.
        console: where to tell it.

    Raises:
        StoryBroken: the other side's ledger is not what it must be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    with _other_side(folder) as url:
        story = Story(url, folder, console)
        _tell_of_the_kill(story)
        _tell_of_the_undo(story)


def serve(folder: Path, console: Console) -> int:
    """Run the server alone, on the port that the saga looks for, and print what to type meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    console.print("In another terminal, in this directory:", highlight=False)
    request = os.path.relpath(server.REQUEST_FILE)
    console.print(f"  saga run {_TARGET} {request} --journal sqlite:///saga.db", highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops the server.", highlight=False)
    return server.main(["--state", str(folder / "server.db"), "--verbose"])


def main(arguments: list[str] | None = None) -> int:
    """Tell the story, or serve; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.purchase", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("purchase-demo"), help="its files (%(default)s)")
    parser.add_argument("--serve", action="store_true", help="only run the server, and try it by hand")
    options = parser.parse_args(arguments)
    console = Console()
    os.environ.update(NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")  # the other side is on this machine
    if options.serve:
        return serve(options.dir, console)
    try:
        tell(options.dir, console)
    except (StoryBroken, requests.RequestException) as e:
        console.print(f"\nThe story broke off: {e}", style="red", highlight=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
