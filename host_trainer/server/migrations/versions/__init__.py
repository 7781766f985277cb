"""Each step of the tables' history; never edited once it was released."""
