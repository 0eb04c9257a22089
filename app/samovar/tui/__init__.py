"""The terminal workstation: screens, widgets and themes."""
