"""The server's face: HTTP in and out, and the page for people. Only what is about HTTP is decided here."""
