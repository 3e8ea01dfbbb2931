"""Training in this project's own compiled code, on a CPU."""
