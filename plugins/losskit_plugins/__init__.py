"""The components that losskit brings itself, registered like anybody else's."""
