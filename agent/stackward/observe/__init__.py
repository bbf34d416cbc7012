"""How the outside sees us: metrics, log messages, notifications. Takes values; knows no store and runs nothing."""
