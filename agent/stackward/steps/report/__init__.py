"""What the host and the backups look like, and telling it."""
