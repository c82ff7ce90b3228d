"""The commands of `saga`, by what they are for: to run sagas, to look, to say something, to keep the journal."""

from saga_engine.commands.keeping import export, purge
from saga_engine.commands.looking import list_, preview, replay, show
from saga_engine.commands.running import recover, run, worker
from saga_engine.commands.saying import cancel, edit, resolve, resume, signal, skip, undo

__all__ = [
    "cancel",
    "edit",
    "export",
    "list_",
    "preview",
    "purge",
    "recover",
    "replay",
    "resolve",
    "resume",
    "run",
    "show",
    "signal",
    "skip",
    "undo",
    "worker",
]
