"""Other projects beside ours, on the same saga: each in a virtual environment and a process of its own."""
