"""What the server decides, apart from how it was asked and where it is kept: no clock, disk or database."""
