"""The commands of `saga`: to run sagas, to look, to say something, to keep the journal, to try an extension."""

from saga_engine.commands.connecting import connect
from saga_engine.commands.keeping import export, purge
from saga_engine.commands.looking import list_, preview, replay, show
from saga_engine.commands.running import recover, run, worker
from saga_engine.commands.saying import cancel, edit, resolve, resume, signal, skip, undo

__all__ = [
    "cancel",
    "connect",
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
