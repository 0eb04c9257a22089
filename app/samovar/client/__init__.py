"""How front ends reach an engine: one interface, whatever stands behind it."""
