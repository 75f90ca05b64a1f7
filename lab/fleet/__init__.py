"""`cucm-lab fleet`: as many phones as a user owns, through the acts of a story, and what became of each of them.

`request` is what is asked for, `result` what the reports are made of; between them stands an engine: phones on real
sockets (`run`), or the same boot without any. Whoever makes a `FleetResult` gets table, JSON and page for nothing.
"""
