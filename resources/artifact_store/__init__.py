"""Published artifacts: what one is, how it comes into the store, and how it is read and verified."""
