"""Values that every part shares: no I/O, no threads, no other package of Samovar."""
