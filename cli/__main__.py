"""`python -m danube_raft_cli` is `danube-raft`."""

from __future__ import annotations

from .main import main

if __name__ == "__main__":
    main()
