"""Everything that is drawn; the only room that knows matplotlib."""
