"""One adapter per outside program or service."""
