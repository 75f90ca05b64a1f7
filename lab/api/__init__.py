"""The management API of a running lab: HTTP and JSON for other programs, on a Unix socket and on TCP."""
