"""The interpreters and accelerators that run a backbone file; each is imported only when it is opened."""
