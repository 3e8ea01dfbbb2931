"""Training in this project's own compiled code, for CPUs with a C++ compiler at hand."""
