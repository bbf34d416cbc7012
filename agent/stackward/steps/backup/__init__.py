"""Makes a data backup or a config backup: what is read from where, copied how, and published when."""
