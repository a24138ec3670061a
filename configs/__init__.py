"""Hydra configurations: data, read by the command line and by `contraux.core.preset`; nothing imports this."""
