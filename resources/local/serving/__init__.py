"""Live deployments: what is wanted, which servers are live, and the way from one to the other."""
