"""The degradation policy: pressure in, a level and a reason out. Nothing here does I/O."""
