"""The incumbent's class names and constructors over the plugins; filled family by family."""
