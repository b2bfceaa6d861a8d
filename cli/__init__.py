"""The command line `danube-raft`: one file per noun, installed as the package danube_raft_cli."""
