"""An extension whose handlers its author writes: plain and async ones, for assets and tier configurations."""
