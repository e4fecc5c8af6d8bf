"""What `compare.py` is made of: our contenders and the peers, started and measured alike."""
