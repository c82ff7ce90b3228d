"""One program per peer. Each runs in that peer's own environment, where only the standard library is sure to be."""
