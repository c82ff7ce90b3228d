"""A Connect extension that fulfils orders of Example Cloud Mail."""

__all__: list[str] = []
