"""Benchmarks: figures with a bar each, measured against the usual tools in the same run. Never part of `make test`."""
