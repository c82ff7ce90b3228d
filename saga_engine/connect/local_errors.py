"""What may go wrong with the local Connect.

SagaError                   (transactions.errors)
└── LocalConnectError       the local Connect cannot do what it was asked for
    ├── BadExtension        a folder is no extension project
    ├── BadFault            a fault cannot be meant
    ├── BadFolder           the folder cannot be used, or is somebody else's
    ├── BadQuery            a filter cannot be read
    ├── MissingPackage      a package of the extra `local` is not installed
    ├── NotConnected        no worker of the runner is there
    ├── PortTaken           a server's port cannot be had
    ├── RunnerFailed        the runner did not start, or ended
    ├── RunnerMissing       there is no runner to start
    ├── TaskGivenUp         a task is not delivered again, and is not over
    ├── TaskOverdue         a task did not come to its end in time
    └── TaskRefused         a task cannot be delivered
"""

from __future__ import annotations

from saga_engine.errors import SagaError

__all__ = [
    "BadExtension",
    "BadFault",
    "BadFolder",
    "BadQuery",
    "LocalConnectError",
    "MissingPackage",
    "NotConnected",
    "PortTaken",
    "RunnerFailed",
    "RunnerMissing",
    "TaskGivenUp",
    "TaskOverdue",
    "TaskRefused",
]


class LocalConnectError(SagaError):
    """The local Connect cannot do what it was asked for."""


class BadExtension(LocalConnectError):
    """The folder is no project of an extension."""


class BadFault(LocalConnectError):
    """A fault names an operation, a kind of fault, how many calls it lasts and how long it takes."""


class BadFolder(LocalConnectError):
    """A local Connect needs a folder of its own that it can write to."""


class BadQuery(LocalConnectError):
    """A filter of a collection cannot be read."""


class MissingPackage(LocalConnectError):
    """The local Connect needs packages that come with an extra: install saga-engine[local]."""


class NotConnected(LocalConnectError):
    """No worker of the runner is connected."""


class PortTaken(LocalConnectError):
    """The port of a server cannot be had."""


class RunnerFailed(LocalConnectError):
    """Connect's runner did not start, or ended by itself."""

    def __init__(self, what: str, log_tail: str = "") -> None:
        super().__init__(f"{what}; its log ends:\n{log_tail}" if log_tail else what)
        self.what = what
        self.log_tail = log_tail


class RunnerMissing(LocalConnectError):
    """There is no runner to start: install connect-extension-runner."""


class TaskGivenUp(LocalConnectError):
    """A task was delivered again and again, and did not come to its end."""


class TaskOverdue(LocalConnectError):
    """A task did not come to its end in time."""


class TaskRefused(LocalConnectError):
    """A task cannot be delivered to this extension."""
