"""What `make peers` is made of: getting the peers, starting them, loading them, telling of it."""
