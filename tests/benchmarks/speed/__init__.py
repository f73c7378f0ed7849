"""Speed against peers: each in a process of its own, on one server, with the same passages and vectors."""
