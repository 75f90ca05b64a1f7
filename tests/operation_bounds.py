"""How many operations the hot paths may need: a regression shows here without a clock.

System calls are counted by strace in a server's process, calls of Python functions by `sys.setprofile`. One client
goes step by step, so that every block pays for a whole turn of the loop: under load, turns are shared and it is less.

What is faster lowers its bound in the same change; what needs more says in the change why it is worth it.
"""

from __future__ import annotations

from typing import Final

TFTP_SYSTEM_CALLS_PER_BLOCK: Final = 6
"""Two to wait (the loop's epoll, ours), one look that finds nothing more, receive, send; as a rule they are 3 or 4."""
TFTP_SYSTEM_CALLS_PER_TRANSFER: Final = 24
"""Of a file of one block: the block, the request, the port (connected and emptied), the file's stamp, the trace."""
TFTP_PYTHON_CALLS_PER_BLOCK: Final = 14
TFTP_PYTHON_CALLS_PER_TRANSFER: Final = 95
"""Of a file of one block, with two events told and kept."""
PHONE_PYTHON_CALLS_PER_BLOCK: Final = 5
"""The same in the phone that reads the file."""

TVS_SYSTEM_CALLS: Final = 34
"""Of a server that renders its trace, for one TLS 1.3 connection with one query, one client at a time; without
`getpid`, by which OpenSSL's random numbers notice a fork.
"""
TVS_PYTHON_CALLS: Final = 233
"""Python functions called by the server for it, each of its events rendered as trace lines by itself as it is told:
230.4. Not counted are built-in functions, `TraceWriter` (which the test does without), what the test does to gather
events, and a new millisecond of the trace: how many there are is the clock's doing.
"""
TVS_SILENT_PYTHON_CALLS: Final = 203
"""The same with nobody listening."""
TVS_GARBAGE: Final = 1
"""Objects of a connection that only the cyclic garbage collector gets rid of: a ring with the TLS session in it would
keep 25 KiB for each until the collector comes, which is seldom in a server.
"""
TVS_EVENTS: Final = 7
"""Accepted, handshake begun and done, request, looked up, response, closed."""

FLEET_EVENTS_PER_BOOT: Final = 37
"""Events of both ends for a phone's first boot: its own, DHCP's, the TFTP service's, CallManager's."""
FLEET_EVENTS_PER_MIGRATION: Final = 58
"""The same for its reset and migration, with one TVS query and two alarms."""
FLEET_PYTHON_CALLS_PER_PHONE: Final = 14_000
"""Python functions called for boot and migration together, by both ends (built-in ones not counted): 11,600, and 12,300
where all of it shares a core with others, for then more turns of the loop pass meanwhile."""

TLS_BYTES_AT_REST: Final = 66_000
"""What the C library holds for both ends of a registered phone's TLS session, which is mostly OpenSSL's own structures:
59,500 with TLS 1.3, 61,700 with TLS 1.2 (docs/fleet-profile.md has the parts)."""
FLEET_KIB_PER_PHONE: Final = 150
"""Of both ends, with 200 phones and a process for them: 131 to 133, of which 35 are what the first few hundred phones
cost once (certificates, configurations and answers kept for whoever comes next)."""
