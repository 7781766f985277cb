"""Lists and signs what the devices may run: a TUF repository in a folder, and the keys it is signed with."""
