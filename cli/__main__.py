"""`python -m danube_raft_cli` is `danube-raft`."""

from .main import main

main()
