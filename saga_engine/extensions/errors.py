"""The errors of plugins, extensions and modules. All descend from `SagaError`.

SagaError                           (transactions.errors)
├── PluginError                     something is wrong with a plugin
│   ├── PluginLoadError             it cannot be added
│   ├── PluginStartError            its init or start raised, or a task of its own did
│   ├── PluginStopError             its stop or unload raised
│   ├── PluginStateError            no plugin has that id, or its state does not allow this
│   └── PluginResolutionError       a dependency is missing, or they form a circle
├── ConfigError                     a configuration is wrong; also a ValueError
├── NotConforming                   an extension is not of its point's type; also a ValueError
├── NoExtension                     nothing was contributed to a point; also a ValueError
├── DuplicateExtension              an extension, a point or an undo is there already; also a ValueError
├── UnknownExtension                no such extension is registered; also a ValueError
├── NoService                       an extension provides no service; also a ValueError
├── ReservedName                    a name is the engine's own; also a ValueError
├── UnknownRegistration             a module registers what there is not; also an AttributeError
├── UnknownSetting                  the configuration has no such name; also an AttributeError
├── SetterError                     a setter of an extension cannot be called with one value; also a TypeError
├── RegistrationClosed              it is too late to register this; also a RuntimeError
├── NoTaskGroup                     no task group is open; also a RuntimeError
├── TaskGroupOpen                   the task group is open already; also a RuntimeError
├── TaskFailedEarly                 a background task ended before it had started; also a RuntimeError
├── NoClient                        a client left that never came; also a RuntimeError
├── TaskInterrupted                 a task of a plugin ended itself, by `sys.exit()` or by a cancellation
├── UndoFailed                      something that was registered cannot be taken back
├── ModuleFailure                   a callback raised where an answer was needed
├── OperationDenied                 a callback denied the operation
├── NotCacheable                    a function or its arguments cannot be cached; also a TypeError
├── NotCached                       a function has no cache, or none that is registered; also a ValueError
├── InvalidatedTooOften             a value was out of date each time it was computed
└── JournalError                    (saga_engine.errors)
    └── InvalidationsUnsupported    this journal cannot tell other processes what is out of date
"""

from __future__ import annotations

from collections.abc import Iterable

from saga_engine.errors import JournalError, SagaError

__all__ = [
    "ConfigError",
    "DuplicateExtension",
    "InvalidatedTooOften",
    "InvalidationsUnsupported",
    "ModuleFailure",
    "NoClient",
    "NoExtension",
    "NoService",
    "NoTaskGroup",
    "NotCacheable",
    "NotCached",
    "NotConforming",
    "OperationDenied",
    "PluginError",
    "PluginLoadError",
    "PluginResolutionError",
    "PluginStartError",
    "PluginStateError",
    "PluginStopError",
    "RegistrationClosed",
    "ReservedName",
    "SetterError",
    "TaskFailedEarly",
    "TaskGroupOpen",
    "TaskInterrupted",
    "UndoFailed",
    "UnknownExtension",
    "UnknownRegistration",
    "UnknownSetting",
]


class PluginError(SagaError):
    """Something is wrong with a plugin.

    Attributes:
        others: what else went wrong in the same operation, which was carried through all the same.
    """

    others: tuple[PluginError, ...] = ()

    def __str__(self) -> str:
        return "; and: ".join([super().__str__(), *map(str, self.others)])


class PluginLoadError(PluginError):
    """The plugin cannot be added."""


class PluginStartError(PluginError):
    """The plugin cannot be started, or a background task of its own failed."""


class PluginStopError(PluginError):
    """The plugin could not be stopped or unloaded cleanly."""


class PluginStateError(PluginError):
    """No plugin has that id, or its state does not allow this."""


class PluginResolutionError(PluginError):
    """A dependency of a plugin is missing, or dependencies form a circle."""


class ConfigError(SagaError, ValueError):
    """The configuration is wrong.

    Args:
        message: what is wrong, and what to write instead.
        path: where in the configuration, outermost name first.

    Attributes:
        message: the text without the path.
        path: as given, as a tuple.
    """

    def __init__(self, message: str = "the configuration is wrong", path: Iterable[str] = ()) -> None:
        self.message = message
        self.path = tuple(path)
        super().__init__(f"{'.'.join(self.path)}: {message}" if self.path else message)


class NotConforming(SagaError, ValueError):
    """The extension is not of the type that its extension point declares."""


class NoExtension(SagaError, ValueError):
    """Nothing was contributed to that extension point."""


class DuplicateExtension(SagaError, ValueError):
    """This is registered already."""


class UnknownExtension(SagaError, ValueError):
    """No such extension is registered."""


class NoService(SagaError, ValueError):
    """The extension provides no service: it has no get_service()."""


class ReservedName(SagaError, ValueError):
    """The name is one of the engine's own."""


class UnknownRegistration(SagaError, AttributeError):
    """There is no such thing to register for."""


class UnknownSetting(SagaError, AttributeError):
    """The configuration has no such name."""


class SetterError(SagaError, TypeError):
    """A setter of an extension cannot be called with one value."""


class RegistrationClosed(SagaError, RuntimeError):
    """It is too late to register this."""


class NoTaskGroup(SagaError, RuntimeError):
    """There is no open task group to run a background task in."""


class TaskGroupOpen(SagaError, RuntimeError):
    """The task group is open already."""


class TaskFailedEarly(SagaError, RuntimeError):
    """A background task ended before it had started."""


class NoClient(SagaError, RuntimeError):
    """No client is connected."""


class TaskInterrupted(SagaError):
    """Code of a plugin ended its own task: it called `sys.exit()`, or cancelled itself."""


class UndoFailed(SagaError):
    """Something that was registered could not be taken back.

    Attributes:
        causes: what the undos raised, in the order in which they were run.
    """

    def __init__(self, message: str, causes: Iterable[BaseException] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class ModuleFailure(SagaError):
    """A callback of a module raised where an answer was needed."""


class OperationDenied(SagaError):
    """A callback denied the operation.

    Attributes:
        callback: the name of the callback, such as `check_saga_start`.
        plugin: the id of the plugin that it belongs to.
        reason: what it answered; empty if it gave none.
    """

    def __init__(self, message: str, callback: str = "", plugin: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.callback = callback
        self.plugin = plugin
        self.reason = reason


class NotCacheable(SagaError, TypeError):
    """The function, or one of its arguments, cannot be cached."""


class NotCached(SagaError, ValueError):
    """The function has no cache, or none that is registered."""


class InvalidatedTooOften(SagaError):
    """The value was out of date each time it had been computed."""


class InvalidationsUnsupported(JournalError):
    """This journal cannot tell other processes what is out of date."""
