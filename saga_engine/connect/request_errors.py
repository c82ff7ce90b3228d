"""What may be wrong with a request of Connect, or with what is asked of it.

SagaError                   (transactions.errors)
├── BadValue                a value cannot be read as what it should be, or cannot be written; also a ValueError
└── MissingInRequest        the request lacks something; also a KeyError
    ├── MissingField        ... that requests of its kind have
    ├── MissingItem         ... an item
    ├── MissingParameter    ... a parameter
    └── MissingTier         ... the account of a tier
"""

from __future__ import annotations

from collections.abc import Iterable

from saga_engine.errors import SagaError

__all__ = ["BadValue", "MissingField", "MissingInRequest", "MissingItem", "MissingParameter", "MissingTier", "listed"]

_NAMES_MAX = 50


class BadValue(SagaError, ValueError):
    """A value in a request, or for one, cannot be used."""


class MissingInRequest(SagaError, KeyError):
    """The request lacks something."""

    __str__ = Exception.__str__  # a KeyError's own shows the message in quotes


class MissingField(MissingInRequest):
    """The request lacks a field that requests of its kind have."""


class MissingItem(MissingInRequest):
    """The request has no such item."""


class MissingParameter(MissingInRequest):
    """The request has no such parameter."""


class MissingTier(MissingInRequest):
    """The request names no account for that tier."""


def listed(names: Iterable[str]) -> str:
    """Tell in the text of an error what there is: the first fifty names, or `none`."""
    known = [str(name) for name in names]
    more = f", and {len(known) - _NAMES_MAX} more" if len(known) > _NAMES_MAX else ""
    return (", ".join(known[:_NAMES_MAX]) or "none") + more
