"""Plain words for database replication."""

from __future__ import annotations

from cucm.events import Event, replication


def replication_headline(event: Event) -> str | None:
    """One line for the timeline; None for other events, and for changes that arrive at once, as they should."""
    match event:
        case replication.ChangesReplicated(node=node, transactions=number, late=True):
            return f"{node} has {number} {'change' if number == 1 else 'changes'} of the publisher now, late"
        case replication.NodeCopied(node=node):
            return f"{node} has a full copy of the publisher's database"
        case replication.ReplicationLagSet(node=node, lag_s=lag_s):
            return f"changes reach {node} {lag_s:g} s late" if lag_s else f"changes reach {node} at once"
        case replication.ReplicationPaused(node=node):
            return f"replication to {node} waits"
        case replication.ReplicationResumed(node=node):
            return f"replication to {node} goes on"
        case replication.ReplicationBroken(node=node, reason=reason):
            return f"replication to {node} is BROKEN: {reason}"
        case replication.ReplicationDelayed(node=node, reason=reason):
            return f"replication to {node} cannot go on just now: {reason}"
        case _:
            return None
