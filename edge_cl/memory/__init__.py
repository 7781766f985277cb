"""What the device remembers: the event log, the features and the rehearsal buffer."""
