"""Measurements, side by side with the crypto floor and with C servers where they are installed: `python -m bench`.

Never run by tests for its numbers. Loopback only; every run is bounded in count and time.
"""
