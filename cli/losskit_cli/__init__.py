"""The command `losskit`: one file per command, each imported when it is called."""
