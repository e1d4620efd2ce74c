"""The audit log: what the gateway wrote down, sealed tenant by tenant, kept, searched, shipped, deleted."""
