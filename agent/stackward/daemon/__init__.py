"""The scheduler: the supervised program that lets runs happen when they are due."""
