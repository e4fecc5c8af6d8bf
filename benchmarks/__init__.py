"""The suites that asv runs for each commit. `compare.py` sets them beside the peers."""
