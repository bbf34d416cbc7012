"""The watcher: the supervised program that sees stacks change and containers die, and has others look."""
