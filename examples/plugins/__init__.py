"""One plugin of each form, used by one saga. Run it with `python -m examples.plugins`; see docs/extensions.md."""
