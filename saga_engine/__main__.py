"""`python -m saga_engine` is the command `saga`."""

from saga_engine.cli import main

main(prog_name="saga")
