"""What may go wrong with the local Connect.

SagaError                   (transactions.errors)
└── LocalConnectError       the local Connect cannot do what it was asked for
    ├── BadExtension        a folder is no extension project
    ├── BadFault            a fault cannot be meant
    ├── BadQuery            a filter cannot be read
    ├── MissingPackage      a package of the extra `local` is not installed
    ├── NotConnected        no worker of the runner is there
    ├── RunnerFailed        the runner did not start, or ended
    ├── RunnerMissing       there is no runner to start
    ├── TaskOverdue         a task did not come to its end in time
    └── TaskRefused         a task cannot be delivered
"""

from __future__ import annotations

from saga_engine.errors import SagaError

__all__ = [
    "BadExtension",
    "BadFault",
    "BadQuery",
    "LocalConnectError",
    "MissingPackage",
    "NotConnected",
    "RunnerFailed",
    "RunnerMissing",
    "TaskOverdue",
    "TaskRefused",
]


class LocalConnectError(SagaError):
    """The local Connect cannot do what it was asked for."""


class BadExtension(LocalConnectError):
    """The folder is no project of an extension."""


class BadFault(LocalConnectError):
    """A fault names an operation, a kind of fault, how many calls it lasts and how long it takes."""


class BadQuery(LocalConnectError):
    """A filter of a collection cannot be read."""


class MissingPackage(LocalConnectError):
    """The local Connect needs packages that come with an extra: install saga-engine[local]."""


class NotConnected(LocalConnectError):
    """No worker of the runner is connected."""


class RunnerFailed(LocalConnectError):
    """Connect's runner did not start, or ended by itself."""


class RunnerMissing(LocalConnectError):
    """There is no runner to start: install connect-extension-runner."""


class TaskOverdue(LocalConnectError):
    """A task did not come to its end in time."""


class TaskRefused(LocalConnectError):
    """A task cannot be delivered to this extension."""
