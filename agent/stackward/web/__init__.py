"""What is served over HTTP: `/metrics` and `/healthz`, to be read only. A program of its own: a scrape holds up no run."""
