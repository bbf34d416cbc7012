"""The Btrfs volume: its snapshots, what differs between them, and moving a stack's trees onto it."""
